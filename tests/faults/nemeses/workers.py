"""Workers that die, freeze, are stopped, run unruly handlers, or have a wrong clock."""

import asyncio
import importlib.util
import sys
from pathlib import Path

from tests.faults import observations
from tests.faults.cluster import LEASE_SECONDS
from tests.faults.nemesis import Nemesis
from tests.faults.processes import SABOTAGED
from tests.faults.sabotage import BLOCKING, KILL_AFTER, KILL_AT, OLDER, STEPS, STUBBORN
from tests.faults.scenario import Scenario
from tests.waiting import slowdown

VICTIMS = 4
"""Workers started at once: each start takes a second of processor time."""
VICTIM_SECONDS = 40
"""Within this time after its start a worker reaches its step, on a machine that is otherwise idle."""
_LIBFAKETIME = "vendor/libfaketime/src/libfaketime.so.1"


async def crash_at_each_step(scenario: Scenario) -> None:
    """Extra workers kill themselves, each at another step of a job."""
    workers = scenario.cluster.workers
    steps = list(STEPS)
    scenario.random.shuffle(steps)
    for start in range(0, len(steps), VICTIMS):
        victims = dict(enumerate(steps[start : start + VICTIMS], start=100))
        for number, step in victims.items():
            extra = {KILL_AT: step, KILL_AFTER: str(scenario.random.randint(1, 4))}
            workers.start(number, extra, command=SABOTAGED, kills_itself=True)
        for number, step in victims.items():
            if await workers.wait_exit(number, seconds=VICTIM_SECONDS * await asyncio.to_thread(slowdown)):
                scenario.faults += 1
            else:
                workers.kill(number)
                scenario.violations.append(("suite", f"no worker came to the step {step!r}"))
            del workers.processes[number]


async def kill(scenario: Scenario) -> None:
    """SIGKILL to a random worker, and a restart."""
    for _ in range(3):
        await scenario.pause(0.2, 1.0)
        number = scenario.random.choice((0, 1))
        scenario.cluster.workers.kill(number)
        scenario.cluster.workers.start(number)
        scenario.faults += 1
    await scenario.cluster.workers.wait_ready()


async def freeze(scenario: Scenario) -> None:
    """A worker freezes with open transactions until its leases have expired, and resumes."""
    workers = scenario.cluster.workers
    await scenario.pause(0.2, 0.5)
    async with scenario.hold_rows():
        await scenario.pause(0.2, 0.3)
        number = scenario.random.choice((0, 1))
        workers.freeze(number)
    try:
        await scenario.pause(LEASE_SECONDS + 0.5, LEASE_SECONDS + 1)
    finally:
        workers.resume(number)
    scenario.faults += 1


async def rolling_restart(scenario: Scenario) -> None:
    """Workers are stopped and started one after the other, alternately as another version.

    One is always up, no attempt is counted, and each version takes over jobs of the other.
    """
    workers = scenario.cluster.workers
    for turn, number in enumerate([0, 1] * (10 if scenario.is_long else 2)):
        await scenario.pause(0, 0.3)
        if (code := await workers.stop(number)) != 0:
            scenario.violations.append(("I8", f"a stopped worker exited with {code}"))
        if turn // 2 % 2 == 0:
            workers.start(number, _other_version(scenario), command=SABOTAGED)
        else:
            workers.start(number)
        await workers.wait_ready(number)
        scenario.faults += 1
    gap_seconds = await scenario.cluster.query(observations.longest_gap_seconds)
    if gap_seconds > workers.longest_start_seconds + 0.5:
        scenario.violations.append(
            ("P6", f"no effect for {gap_seconds:.1f} s; a start takes {workers.longest_start_seconds:.1f} s")
        )


def _other_version(scenario: Scenario) -> dict[str, str]:
    """The environment of a worker that differs as another version may: scripts, leases, sessions, batches.

    The suite cannot rely on a real older version. This one shows that leases, tokens, parked jobs and ledger rows pass
    between workers that differ in all that the wire leaves open.
    """
    return {
        OLDER: "1",
        "WORKER_LEASE_SECONDS": str(LEASE_SECONDS + 1),
        "WORKER_CONCURRENCY": "8",
        "WORKER_BATCH_SIZE": "20" if scenario.batch == 1 else "1",
        "WORKER_RESULT_TTL_SECONDS": "1800",
    }


async def run_unruly_handlers(scenario: Scenario) -> None:
    """One worker whose handlers block the event loop past the lease, one whose handlers ignore cancellation."""
    workers = scenario.cluster.workers
    for number, fault in enumerate((BLOCKING, STUBBORN)):
        workers.kill(number)
        workers.start(number, {fault: "1"}, command=SABOTAGED)
    await workers.wait_ready()
    await scenario.pause(3, 4)
    scenario.faults += 2


def faketime_library() -> Path | None:
    """The library that shifts the clock of a process when preloaded; None if this machine has none."""
    found = importlib.util.find_spec("libfaketime")
    if found is None or not sys.platform.startswith("linux"):
        return None
    library = Path(found.submodule_search_locations[0] if found.submodule_search_locations else "") / _LIBFAKETIME
    return library if library.exists() else None


async def shift_clocks(scenario: Scenario) -> None:
    """One worker an hour ahead, one an hour behind; Redis and PostgreSQL keep the right time."""
    library = faketime_library()
    if library is None:
        raise RuntimeError("libfaketime is missing: pip install libfaketime")
    workers = scenario.cluster.workers
    for number, offset in enumerate(("+3600", "-3600")):
        workers.kill(number)
        workers.start(number, {"LD_PRELOAD": str(library), "FAKETIME": offset, "FAKETIME_DONT_FAKE_MONOTONIC": "1"})
        scenario.faults += 1
    await workers.wait_ready()
    await scenario.pause(1, 2)
    workers.kill(0)  # its leases expire by Redis's clock
    workers.start(0)
    await workers.wait_ready(0)


SHORT_TIMEOUT = {"WORKER_JOB_TIMEOUT_SECONDS": "2"}
WORKERS = [
    Nemesis(1, "crash-at-each-step", crash_at_each_step, "workers", kills_jobs=True),
    Nemesis(2, "kill", kill, "workers", kills_jobs=True),
    Nemesis(3, "zombie", freeze, "workers", kills_jobs=True),
    Nemesis(4, "sigterm", rolling_restart, "workers", costs_no_attempt=True, batches=False, once=True),
    Nemesis(12, "unruly-handlers", run_unruly_handlers, "workers", settings=SHORT_TIMEOUT, kills_jobs=True),
    Nemesis(17, "clocks", shift_clocks, "workers", kills_jobs=True),
]

"""Workers that die, freeze, or are stopped."""

from tests.faults import seen
from tests.faults.house import LEASE_SECONDS
from tests.faults.nemesis import Nemesis
from tests.faults.processes import SABOTAGED
from tests.faults.sabotage import KILL_AFTER, KILL_AT, OLDER, STEPS
from tests.faults.stage import Stage

VICTIMS = 4
"""How many start at once: each takes a core for a second."""


async def at_each_step(stage: Stage) -> None:
    """Workers that kill themselves at a step of a job's road, each at another, while one lives."""
    workers = stage.house.workers
    steps = list(STEPS)
    stage.chance.shuffle(steps)
    for start in range(0, len(steps), VICTIMS):
        victims = dict(enumerate(steps[start : start + VICTIMS], start=100))
        for number, step in victims.items():
            extra = {KILL_AT: step, KILL_AFTER: str(stage.chance.randint(1, 4))}
            workers.start(number, extra, command=SABOTAGED, doomed=True)
        for number, step in victims.items():
            if await workers.ended(number, seconds=40):
                stage.faults += 1
            else:
                workers.kill(number)
                stage.complaints.append(("suite", f"no worker came to the step {step!r}"))
            del workers.processes[number]


async def kill(stage: Stage) -> None:
    """kill -9 at random, and a start at once."""
    for _ in range(3):
        await stage.pause(0.2, 1.0)
        number = stage.chance.choice((0, 1))
        stage.house.workers.kill(number)
        stage.house.workers.start(number)
        stage.faults += 1
    await stage.house.workers.started()


async def freeze(stage: Stage) -> None:
    """A worker stands still past its leases, with transactions open, and goes on."""
    workers = stage.house.workers
    await stage.pause(0.2, 0.5)
    async with stage.rows_held():
        await stage.pause(0.2, 0.3)
        number = stage.chance.choice((0, 1))
        workers.freeze(number)
    try:
        await stage.pause(LEASE_SECONDS + 0.5, LEASE_SECONDS + 1)
    finally:
        workers.thaw(number)
    stage.faults += 1


async def roll(stage: Stage) -> None:
    """Stopped and started again, one after the other: one is always up, and no attempt is counted.

    Each comes back in the other version, so that both are at work together, and each takes over from each.
    """
    workers = stage.house.workers
    for turn, number in enumerate([0, 1] * (10 if stage.long else 2)):
        await stage.pause(0, 0.3)
        if (code := await workers.stop(number)) != 0:
            stage.complaints.append(("I8", f"a worker that was stopped ended with {code}"))
        if turn // 2 % 2 == 0:
            workers.start(number, older(stage), command=SABOTAGED)
        else:
            workers.start(number)
        await workers.started(number)
        stage.faults += 1
    gap_seconds = await stage.house.observe(seen.longest_gap_seconds)
    if gap_seconds > workers.longest_start_seconds + 0.5:
        stage.complaints.append(
            ("P6", f"nothing was done for {gap_seconds:.1f} s; a start takes {workers.longest_start_seconds:.1f} s")
        )


def older(stage: Stage) -> dict[str, str]:
    """What makes a worker one of another version: the texts of its scripts, the length of its leases, its sessions.

    There is no other version to be had wherever the suite runs. This one stands for it: it shows that leases, tokens,
    parked jobs and ledger rows go from hand to hand between workers that differ in all that the wire leaves open.
    """
    return {
        OLDER: "1",
        "WORKER_LEASE_SECONDS": str(LEASE_SECONDS + 1),
        "WORKER_CONCURRENCY": "8",
        "WORKER_BATCH_SIZE": "20" if stage.batch == 1 else "1",
        "WORKER_RESULT_TTL_SECONDS": "1800",
    }


CRASHES = [
    Nemesis(1, "crash-at-each-step", at_each_step, "workers", kills=True),
    Nemesis(2, "kill", kill, "workers", kills=True),
    Nemesis(3, "zombie", freeze, "workers", kills=True),
    Nemesis(4, "sigterm", roll, "workers", counts_no_try=True, batches=False, once=True),
]

"""A nemesis, and a run with one: load, strike, heal, settle, judge."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from tests.faults.cluster import Cluster
from tests.faults.final_checks import judge_history, settle
from tests.faults.scenario import Scenario
from tests.faults.verdict import Verdict

MIN_JOBS = 200
"""Of a run; more if the nemesis takes longer."""
LONGEST_STRIKE_SECONDS = 150.0

Target = Literal["workers", "network", "redis", "database", "jobs"]


@dataclass(frozen=True)
class Nemesis:
    """One kind of fault.

    Attributes:
        number: its place in the order of runs.
        strike: causes faults for some seconds; healing undoes what it leaves. The long form repeats it.
        target: two nemeses with the same target do not strike at once.
        settings: of the workers, in addition to the usual ones.
        costs_no_attempt: no job is to blame for the fault, so every job must be done at its first attempt.
        kills_jobs: a job may use up its attempts and die.
        batches: whether it also runs against workers with many jobs in a transaction.
        once: the long form has time for one strike only, half-way through the run.
        idle: the long form leaves the processor free for other work.
    """

    number: int
    name: str
    strike: Callable[[Scenario], Awaitable[None]]
    target: Target
    settings: Mapping[str, str] = field(default_factory=dict)
    costs_no_attempt: bool = False
    kills_jobs: bool = False
    once: bool = False
    batches: bool = True
    idle: bool = False


@dataclass(frozen=True)
class RunOptions:
    """The options that repeat a run."""

    seed: int
    seconds: float = 0
    """How long the nemesis strikes at least; 0: once, the short form."""
    batch: int = 1
    """The largest number of jobs in one transaction."""
    mutation: str | None = None
    """The safeguard that the workers lack, so that an invariant must break."""

    @property
    def settings(self) -> dict[str, str]:
        return {} if self.batch == 1 else {"WORKER_BATCH_SIZE": str(self.batch)}


@dataclass(frozen=True)
class RunResult:
    """A finished run."""

    nemesis: str
    options: RunOptions
    jobs: int
    faults: int
    recovery_seconds: float
    verdict: Verdict
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    """From empty servers to the verdict."""

    @property
    def command(self) -> str:
        """The command that repeats the run."""
        options = self.options
        words = ["python -m tests.faults --only", self.nemesis, "--seed", options.seed, "--batch", options.batch]
        words += ["--seconds", f"{options.seconds:g}"] if options.seconds else []
        words += ["--without", options.mutation] if options.mutation else []
        return " ".join(map(str, words))

    def __str__(self) -> str:
        counts = f"{self.jobs} jobs, {self.faults} faults, settled after {self.recovery_seconds:.1f} s"
        return "\n".join([f"{self.nemesis}: {counts}", str(self.verdict), *self.notes, f"repeat it: {self.command}"])


async def run_nemesis(cluster: Cluster, nemesis: Nemesis, options: RunOptions) -> RunResult:
    """Let a nemesis strike under load, and judge the result."""
    began = time.monotonic()
    settings = {**options.settings, **nemesis.settings}
    scenario = Scenario(cluster, options.seed, options.seconds, settings, mutation=options.mutation)
    await scenario.open()
    watch = asyncio.create_task(scenario.client.watch_outcomes())
    strike = asyncio.create_task(_strike(nemesis, scenario))
    load = asyncio.create_task(scenario.enqueue_load(MIN_JOBS, strike))
    try:
        await asyncio.wait({strike, load}, return_when=asyncio.FIRST_EXCEPTION)
        await strike
        await load
        await cluster.heal()
        verdict = await settle(scenario)
        judged = await judge_history(scenario)
    finally:
        await _cancel_all(watch, strike, load)
        await cluster.heal()
        await scenario.close()
    verdict.jobs, verdict.context = judged.jobs, judged.context
    for invariant, found in judged.violations.items():
        verdict.add(invariant, *found)
    for invariant, violation in scenario.violations:
        verdict.add(invariant, violation)
    if nemesis.costs_no_attempt and (attempts := await scenario.client.attempts()) != {1}:
        verdict.add("P8", f"an outage cost attempts: {sorted(attempts)}")
    if judged.deaths and not nemesis.kills_jobs:
        verdict.add("P8", *(f"dead without a reason: {job_id}" for job_id in judged.deaths))
    if verdict.violations:
        # The state of these workers is unknown: the next run needs new ones.
        cluster.workers.kill_all()
    notes, seconds = tuple(scenario.notes), time.monotonic() - began
    return RunResult(
        nemesis.name, options, verdict.jobs, scenario.faults, scenario.recovery_seconds, verdict, notes, seconds
    )


async def _strike(nemesis: Nemesis, scenario: Scenario) -> None:
    """Strike once, or in the long form until the time is over."""
    began = time.monotonic()
    async with asyncio.timeout(LONGEST_STRIKE_SECONDS + scenario.seconds):
        if nemesis.once and scenario.is_long:
            await asyncio.sleep(scenario.seconds / 2)
        await nemesis.strike(scenario)
        while time.monotonic() - began < scenario.seconds and not nemesis.once:
            await nemesis.strike(scenario)


async def _cancel_all(*tasks: asyncio.Task[None]) -> None:
    pending = set(tasks)
    while pending:
        # A library may swallow a cancellation while it waits for a connection (`asyncio.wait_for` before Python 3.12).
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=1)
    await asyncio.gather(*tasks, return_exceptions=True)  # their results are known or not needed

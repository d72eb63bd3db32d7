"""A nemesis, and a run with one: load, strike, heal, quiet, verdict."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from tests.faults.ending import judged, settle
from tests.faults.house import House
from tests.faults.stage import Stage
from tests.faults.verdict import Verdict

JOBS = 200
"""How many a run has at the least; more when the nemesis takes longer."""
LONGEST_STRIKE_SECONDS = 150.0

Place = Literal["workers", "ways", "redis", "database", "jobs"]


@dataclass(frozen=True)
class Nemesis:
    """One kind of fault.

    Attributes:
        number: its number in the specification.
        strike: does harm, for some seconds, and undoes it or leaves that to healing; in the long form again and again.
        place: what it strikes; two that strike the same are not let loose at once.
        settings: the workers' settings, beside the usual.
        counts_no_try: an outage is nothing that a job is to blame for: all must be done at their first try.
        kills: it may bring so many tries of a job to a bad end that the job is given up.
        batches: whether it is another thing for workers that do many jobs in a transaction.
        idle: its long form leaves the machine time for something else.
        once: a strike of the long form is all that a run has time for; it comes when the workers are well at work.
    """

    number: int
    name: str
    strike: Callable[[Stage], Awaitable[None]]
    place: Place
    settings: Mapping[str, str] = field(default_factory=dict)
    counts_no_try: bool = False
    kills: bool = False
    once: bool = False
    batches: bool = True
    idle: bool = False


@dataclass(frozen=True)
class How:
    """What a run is repeated by."""

    seed: int
    seconds: float = 0
    """How long the nemesis strikes, at the least; 0: once, the short form."""
    batch: int = 1
    """At most so many jobs in one transaction."""
    mutation: str | None = None
    """What is taken away from the workers, so that an invariant must break."""

    @property
    def settings(self) -> dict[str, str]:
        """The settings of the workers."""
        return {} if self.batch == 1 else {"WORKER_BATCH_SIZE": str(self.batch)}


@dataclass(frozen=True)
class Run:
    """A run that is over."""

    nemesis: str
    how: How
    jobs: int
    faults: int
    recovery_seconds: float
    verdict: Verdict
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    """How long it took, from empty servers to the verdict."""

    @property
    def command(self) -> str:
        """What repeats it."""
        how = self.how
        words = ["python -m tests.faults --only", self.nemesis, "--seed", how.seed, "--batch", how.batch]
        words += ["--seconds", f"{how.seconds:g}"] if how.seconds else []
        words += ["--without", how.mutation] if how.mutation else []
        return " ".join(map(str, words))

    def __str__(self) -> str:
        done = f"{self.jobs} jobs, {self.faults} faults, quiet after {self.recovery_seconds:.1f} s"
        return "\n".join([f"{self.nemesis}: {done}", str(self.verdict), *self.notes, f"repeat it: {self.command}"])


async def run(house: House, nemesis: Nemesis, how: How) -> Run:
    """Let a nemesis strike a loaded stage once; what it came to."""
    began = time.monotonic()
    stage = Stage(house, how.seed, how.seconds, {**how.settings, **nemesis.settings}, mutation=how.mutation)
    await stage.begin()
    watching = asyncio.create_task(stage.client.watch())
    struck = asyncio.create_task(_struck(nemesis, stage))
    loading = asyncio.create_task(stage.loaded(JOBS, struck))
    try:
        await asyncio.wait({struck, loading}, return_when=asyncio.FIRST_EXCEPTION)
        await struck
        await loading
        await house.heal()
        verdict = await settle(stage)
        seen = await judged(stage)
    finally:
        await _over(watching, struck, loading)
        await house.heal()
        await stage.end()
    verdict.jobs, verdict.around = seen.jobs, seen.around
    for invariant, found in seen.wrong.items():
        verdict.add(invariant, *found)
    for invariant, complaint in stage.complaints:
        verdict.add(invariant, complaint)
    if nemesis.counts_no_try and (tries := await stage.client.tries()) != {1}:
        verdict.add("P8", f"tries that an outage cost were counted: {sorted(tries)}")
    if seen.deaths and not nemesis.kills:
        verdict.add("P8", *(f"given up without a reason: {job_id}" for job_id in seen.deaths))
    if verdict.wrong:
        # The state of these workers is unknown: the next run needs new ones.
        house.workers.end_all()
    notes, seconds = tuple(stage.notes), time.monotonic() - began
    return Run(nemesis.name, how, verdict.jobs, stage.faults, stage.recovery_seconds, verdict, notes, seconds)


async def _struck(nemesis: Nemesis, stage: Stage) -> None:
    """In the long form, strike again until the time is over."""
    began = time.monotonic()
    async with asyncio.timeout(LONGEST_STRIKE_SECONDS + stage.seconds):
        if nemesis.once and stage.long:
            await asyncio.sleep(stage.seconds / 2)
        await nemesis.strike(stage)
        while time.monotonic() - began < stage.seconds and not nemesis.once:
            await nemesis.strike(stage)


async def _over(*tasks: asyncio.Task[None]) -> None:
    pending = set(tasks)
    while pending:
        # A library may swallow a cancellation while it waits for a connection (`asyncio.wait_for`, before Python 3.12).
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=1)
    await asyncio.gather(*tasks, return_exceptions=True)  # what they came to is known, or no more wanted

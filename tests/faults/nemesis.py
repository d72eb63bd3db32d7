"""A nemesis, and a run with one: load, strike, heal, quiet, verdict."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal

from tests.faults.ending import judged, settle
from tests.faults.house import House
from tests.faults.stage import Stage
from tests.faults.verdict import Verdict

JOBS, LONG_JOBS = 200, 1000
"""How many a run has at the least, in the short form and for each step of scale; more when the nemesis takes longer."""
LONGEST_STRIKE_SECONDS = 120.0

Place = Literal["workers", "ways", "redis", "database", "jobs"]


@dataclass(frozen=True)
class Nemesis:
    """One kind of fault.

    Attributes:
        number: its number in the specification.
        strike: does harm, for some seconds, and undoes it or leaves that to healing.
        place: what it strikes; two that strike the same are not let loose at once.
        settings: what the workers are told, beside the usual.
        counts_no_try: an outage is nothing that a job is to blame for: all must be done at their first try.
        kills: it may bring so many tries of a job to a bad end that the job is given up.
    """

    number: int
    name: str
    strike: Callable[[Stage], Awaitable[None]]
    place: Place
    settings: Mapping[str, str] = field(default_factory=dict)
    counts_no_try: bool = False
    kills: bool = False


@dataclass(frozen=True)
class How:
    """What a run is repeated by."""

    seed: int
    scale: int = 1
    """How many times the short form's jobs and faults."""
    batch: int = 1
    """At most so many jobs in one transaction."""

    @property
    def settings(self) -> dict[str, str]:
        """What the workers are told of it."""
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

    @property
    def command(self) -> str:
        """What repeats it."""
        how = self.how
        return f"python -m tests.faults --only {self.nemesis} --seed {how.seed} --scale {how.scale} --batch {how.batch}"

    def __str__(self) -> str:
        done = f"{self.jobs} jobs, {self.faults} faults, quiet after {self.recovery_seconds:.1f} s"
        return "\n".join([f"{self.nemesis}: {done}", str(self.verdict), *self.notes, f"repeat it: {self.command}"])


async def run(house: House, nemesis: Nemesis, how: How) -> Run:
    """Let a nemesis strike a loaded stage once; what it came to."""
    stage = Stage(house, how.seed, how.scale, {**how.settings, **nemesis.settings})
    await stage.begin()
    watching = asyncio.create_task(stage.client.watch())
    struck = asyncio.create_task(_bounded(nemesis, stage))
    try:
        await stage.loaded(JOBS if how.scale == 1 else LONG_JOBS * how.scale, struck)
        await struck
        await house.heal()
        verdict = await settle(stage)
        seen = await judged(stage)
    finally:
        await _over(watching, struck)
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
        # What such workers are good for in the next run nobody knows.
        house.workers.end_all()
    return Run(nemesis.name, how, verdict.jobs, stage.faults, stage.recovery_seconds, verdict, tuple(stage.notes))


async def _bounded(nemesis: Nemesis, stage: Stage) -> None:
    async with asyncio.timeout(LONGEST_STRIKE_SECONDS * stage.scale):
        await nemesis.strike(stage)


async def _over(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await task

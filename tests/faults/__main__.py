"""`python -m tests.faults`: the fault suite in its long form, for as many minutes as wanted."""

import asyncio
import itertools
import random
import shlex
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
import uvloop

from tests.faults.fuzzing import Fuzzed, fuzz
from tests.faults.house import House, house
from tests.faults.nemeses import ALL, NEMESES, RANDOM
from tests.faults.nemeses.clocks import fake_clock
from tests.faults.nemesis import How, Nemesis, Run, run
from tests.faults.report import Campaign, page
from tests.faults.sabotage import MUTATIONS
from tests.faults.verdict import Verdict

LONG_SECONDS = 8.0
"""How long a nemesis strikes at the least, so that within 20 minutes all have their turn, in both forms."""
BATCH = 20

Minutes = Annotated[float, typer.Option(help="How long; what has begun is finished.")]
Seed = Annotated[int | None, typer.Option(help="Of the first run; default: a random one.")]
Only = Annotated[str | None, typer.Option(metavar="NEMESIS", help=f"One of: {', '.join(ALL)}.")]
Seconds = Annotated[float | None, typer.Option(min=0, help="How long a nemesis strikes at the least; 0: once.")]
Batch = Annotated[int | None, typer.Option(min=1, help="Jobs a transaction; default: runs of both kinds.")]
Without = Annotated[
    str | None, typer.Option(metavar="PART", help=f"Take a part away, to see red: {', '.join(MUTATIONS)}.")
]
Report = Annotated[Path | None, typer.Option(help="Where the page with what it showed goes.")]


def main(
    *,
    minutes: Minutes = 0,
    seed: Seed = None,
    only: Only = None,
    seconds: Seconds = None,
    batch: Batch = None,
    without: Without = None,
    report: Report = None,
) -> None:
    """Let every nemesis strike by itself and any two at once, again and again; 1 when an invariant was broken.

    With a seed, a nemesis and no minutes, it is one run: what repeats a failure.
    """
    if only is not None and only not in ALL:
        raise typer.BadParameter(f"{only!r} is none of {', '.join(ALL)}", param_hint="--only")
    # An end from outside is an end like any other: no server and no worker is left behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    chance = random.Random(seed)  # noqa: S311  # repeatable, not secret
    long_seconds = LONG_SECONDS if minutes else 0
    plan = _plan(chance, only, long_seconds if seconds is None else seconds, batch, without, first_seed=seed)
    if minutes == 0:
        plan = itertools.islice(plan, 1 if only else 2 * len(ALL))
    # Hostile input is no nemesis of its own: it has its turn when all have.
    fuzz_seed = chance.randrange(2**32) if minutes and only is None else None
    began = time.monotonic()
    runs, fuzzed, versions = uvloop.run(_campaign(plan, began + minutes * 60 if minutes else float("inf"), fuzz_seed))
    taken = (time.monotonic() - began) / 60
    turns = {(done.nemesis, done.how.batch == 1) for done in runs}
    missing = [
        name if single else f"{name}, batches"
        for single in (True, False)
        for name, nemesis in ALL.items()
        if (single or nemesis.batches) and (name, single) not in turns and only is None and batch is None
    ]
    command = shlex.join(["python", "-m", "tests.faults", *sys.argv[1:]])
    campaign = Campaign(runs, fuzzed, missing, command, versions, taken)
    if report is not None:
        report.write_text(page(campaign))
    jobs = sum(done.jobs for done in runs)
    typer.echo(
        f"{len(runs)} runs, {jobs:,} jobs, {taken:.1f} minutes ({jobs / taken:,.0f} a minute), longest recovery "
        f"{max((done.recovery_seconds for done in runs), default=0):.1f} s, {len(campaign.wrong)} failed"
    )
    raise typer.Exit(1 if campaign.wrong or not runs else 0)


def _plan(
    chance: random.Random,
    only: str | None,
    seconds: float,
    batch: int | None,
    without: str | None,
    *,
    first_seed: int | None,
) -> Iterator[tuple[Nemesis, How]]:
    """What is run, for ever: a round has every nemesis once, and the random one for every six others."""
    there = [nemesis for nemesis in NEMESES.values() if nemesis.name != "clocks" or fake_clock() is not None]
    seed = first_seed
    for size in itertools.cycle([batch] if batch else [1, BATCH]):
        every = [nemesis for start in range(0, len(there), 6) for nemesis in (*there[start : start + 6], RANDOM)]
        for nemesis in [ALL[only]] if only else every:
            if size == 1 or nemesis.batches or only:
                # Many jobs a transaction are many more jobs a second: of a campaign's time they get the larger part.
                lasts = seconds if batch or size == 1 else 2 * seconds
                yield nemesis, How(chance.randrange(2**32) if seed is None else seed, lasts, size, without)
                seed = None


async def _campaign(
    plan: Iterator[tuple[Nemesis, How]], deadline: float, fuzz_seed: int | None
) -> tuple[list[Run], Fuzzed | None, str]:
    runs: list[Run] = []
    fuzzing: asyncio.Task[Fuzzed] | None = None
    async with house() as made:
        try:
            for nemesis, how in plan:
                if time.monotonic() > deadline:
                    break
                if fuzz_seed is not None and fuzzing is None and nemesis.idle:
                    fuzzing = asyncio.create_task(fuzz(fuzz_seed))
                runs.append(await _one(made, nemesis, how))
                _print_last(runs)
            if fuzz_seed is not None and fuzzing is None:
                fuzzing = asyncio.create_task(fuzz(fuzz_seed))
            fuzzed = None if fuzzing is None else await fuzzing
        finally:
            if fuzzing is not None:
                fuzzing.cancel()
                await asyncio.wait({fuzzing})
        versions = await _versions(made)
    if fuzzed is not None:
        typer.echo(str(fuzzed))
    return runs, fuzzed, versions


def _print_last(runs: list[Run]) -> None:
    last = runs[-1]
    if last.verdict.wrong:
        text = str(last)
    else:
        batches = "" if last.how.batch == 1 else ", batches"
        text = (
            f"{last.nemesis}{batches}: {last.jobs:,} jobs, {last.faults} faults, all well after "
            f"{last.recovery_seconds:.1f} s, {last.seconds:.0f} s in all"
        )
    typer.echo(f"{time.strftime('%H:%M:%S')} {text} (so far {sum(done.jobs for done in runs):,} jobs)")


async def _one(made: House, nemesis: Nemesis, how: How) -> Run:
    try:
        return await run(made, nemesis, how)
    except Exception as error:  # noqa: BLE001  # the suite's own fault, or a state that never came: a failure as well
        made.workers.end_all()
        await made.heal()
        verdict = Verdict()
        verdict.add("suite", f"{type(error).__name__}: {error}")
        return Run(nemesis.name, how, 0, 0, 0.0, verdict)


async def _versions(made: House) -> str:
    postgres = await made.observe(lambda database: database.fetchval("SHOW server_version"))
    valkey = (await made.redis.info("server")).get("valkey_version", "?")
    return f"PostgreSQL {postgres.split()[0]}, Valkey {valkey}"


if __name__ == "__main__":
    typer.run(main)

"""`python -m tests.faults`: the fault suite in its long form, for as many minutes as wanted."""

import itertools
import random
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
import uvloop

from tests.faults.house import House, house
from tests.faults.nemeses import ALL, NEMESES, RANDOM
from tests.faults.nemeses.clocks import fake_clock
from tests.faults.nemesis import How, Nemesis, Run, run
from tests.faults.report import page
from tests.faults.verdict import Verdict
from worker.settings import Settings

LONG_SCALE = 4
BATCH = 20

Minutes = Annotated[float, typer.Option(help="How long; what has begun is finished.")]
Seed = Annotated[int | None, typer.Option(help="Of the first run; default: a random one.")]
Only = Annotated[str | None, typer.Option(metavar="NEMESIS", help=f"One of: {', '.join(ALL)}.")]
Scale = Annotated[int | None, typer.Option(min=1, help="How many times the short form's jobs and faults.")]
Batch = Annotated[int | None, typer.Option(min=1, help="Jobs a transaction; default: runs of both kinds.")]
Report = Annotated[Path | None, typer.Option(help="Where the page with what it showed goes.")]


def main(
    *,
    minutes: Minutes = 0,
    seed: Seed = None,
    only: Only = None,
    scale: Scale = None,
    batch: Batch = None,
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
    plan = _plan(chance, only, scale or (1 if minutes == 0 else LONG_SCALE), batch, first_seed=seed)
    if minutes == 0:
        plan = itertools.islice(plan, 1 if only else 2 * len(ALL))
    began = time.monotonic()
    runs, versions = uvloop.run(_campaign(plan, began + minutes * 60 if minutes else float("inf")))
    taken = (time.monotonic() - began) / 60
    if report is not None:
        command = " ".join(["python -m tests.faults", *sys.argv[1:]])
        report.write_text(page(runs, command=command, versions=versions, minutes=taken))
    failed = [done for done in runs if done.verdict.wrong]
    typer.echo(f"{len(runs)} runs, {sum(done.jobs for done in runs):,} jobs, {taken:.1f} minutes, {len(failed)} failed")
    raise typer.Exit(1 if failed or not runs else 0)


def _plan(
    chance: random.Random, only: str | None, scale: int, batch: int | None, *, first_seed: int | None
) -> Iterator[tuple[Nemesis, How]]:
    """What is run, for ever: a round has every nemesis once, and the random one for every six others."""
    there = [nemesis for nemesis in NEMESES.values() if nemesis.name != "clocks" or fake_clock() is not None]
    batches = [batch] if batch else [1, BATCH] if "batch_size" in Settings.model_fields else [1]
    seed = first_seed
    for size in itertools.cycle(batches):
        every = [nemesis for start in range(0, len(there), 6) for nemesis in (*there[start : start + 6], RANDOM)]
        for nemesis in [ALL[only]] if only else every:
            yield nemesis, How(chance.randrange(2**32) if seed is None else seed, scale, size)
            seed = None


async def _campaign(plan: Iterator[tuple[Nemesis, How]], deadline: float) -> tuple[list[Run], str]:
    runs: list[Run] = []
    async with house() as made:
        for nemesis, how in plan:
            if time.monotonic() > deadline:
                break
            runs.append(await _one(made, nemesis, how))
            last = runs[-1]
            said = (
                str(last) if last.verdict.wrong else f"{last.nemesis}: {last.jobs} jobs, {last.faults} faults, all well"
            )
            typer.echo(f"{time.strftime('%H:%M:%S')} {said} (in all {sum(done.jobs for done in runs):,} jobs)")
        versions = await _versions(made)
    return runs, versions


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

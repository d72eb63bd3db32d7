"""`python -m tests.faults`: the long form of the fault suite, for any number of minutes."""

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

from tests.faults.cluster import Cluster, open_cluster
from tests.faults.fuzz_run import FuzzResult, run_fuzz_tests
from tests.faults.nemeses import ALL, RANDOM, available
from tests.faults.nemesis import Nemesis, RunOptions, RunResult, run_nemesis
from tests.faults.report import Campaign, render_page
from tests.faults.sabotage import MUTATIONS
from tests.faults.verdict import Verdict

LONG_SECONDS = 8.0
"""How long a nemesis strikes at least: within 20 minutes every nemesis runs in both forms."""
BATCH = 20

Minutes = Annotated[float, typer.Option(help="Minutes to run; the current run is finished.")]
Seed = Annotated[int | None, typer.Option(help="Seed of the first run; default: a random one.")]
Only = Annotated[str | None, typer.Option(metavar="NEMESIS", help=f"One of: {', '.join(ALL)}.")]
Seconds = Annotated[float | None, typer.Option(min=0, help="How long a nemesis strikes at least; 0: once.")]
Batch = Annotated[int | None, typer.Option(min=1, help="Jobs in a transaction; default: runs with 1 and with many.")]
Without = Annotated[
    str | None,
    typer.Option(metavar="PART", help=f"Disable a part, to prove that the suite fails: {', '.join(MUTATIONS)}."),
]
Report = Annotated[Path | None, typer.Option(help="Write a page with the results to this file.")]


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
    """Run every nemesis by itself and any two at once, repeatedly. Exits with 1 if an invariant is broken.

    A seed and a nemesis without minutes repeat one run.
    """
    if only is not None and only not in ALL:
        raise typer.BadParameter(f"{only!r} is not one of {', '.join(ALL)}", param_hint="--only")
    # Exit normally on SIGTERM, so that servers and workers are cleaned up.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    chance = random.Random(seed)  # noqa: S311  # repeatable, not secret
    long_seconds = LONG_SECONDS if minutes else 0
    plan = _plan(chance, only, long_seconds if seconds is None else seconds, batch, without, first_seed=seed)
    if minutes == 0:
        plan = itertools.islice(plan, 1 if only else 2 * len(ALL))
    fuzz_seed = chance.randrange(2**32) if minutes and only is None else None
    began = time.monotonic()
    deadline = began + minutes * 60 if minutes else float("inf")
    runs, fuzzed, versions = uvloop.run(_run_campaign(plan, deadline, fuzz_seed))
    duration = (time.monotonic() - began) / 60
    missing = [] if only or batch else _missing(runs)
    command = shlex.join(["python", "-m", "tests.faults", *sys.argv[1:]])
    campaign = Campaign(runs, fuzzed, missing, command, versions, duration)
    if report is not None:
        report.write_text(render_page(campaign))
    jobs = sum(run.jobs for run in runs)
    typer.echo(
        f"{len(runs)} runs, {jobs:,} jobs, {duration:.1f} minutes ({jobs / duration:,.0f} per minute), longest "
        f"recovery {max((run.recovery_seconds for run in runs), default=0):.1f} s, {len(campaign.failures)} failed"
    )
    raise typer.Exit(1 if campaign.failures or not runs else 0)


def _plan(
    chance: random.Random,
    only: str | None,
    seconds: float,
    batch: int | None,
    without: str | None,
    *,
    first_seed: int | None,
) -> Iterator[tuple[Nemesis, RunOptions]]:
    """All runs, endlessly: a round has every nemesis once, and the random one after every six others."""
    nemeses = available()
    seed = first_seed
    for size in itertools.cycle([batch] if batch else [1, BATCH]):
        every = [nemesis for start in range(0, len(nemeses), 6) for nemesis in (*nemeses[start : start + 6], RANDOM)]
        for nemesis in [ALL[only]] if only else every:
            if size == 1 or nemesis.batches or only:
                # Batches run many more jobs per second, so they get more of the time.
                duration = seconds if batch or size == 1 else 2 * seconds
                yield nemesis, RunOptions(chance.randrange(2**32) if seed is None else seed, duration, size, without)
                seed = None


def _missing(runs: list[RunResult]) -> list[str]:
    """The nemeses that did not run, in each form."""
    forms = {(run.nemesis, run.options.batch == 1) for run in runs}
    return [
        name if single else f"{name}, batches"
        for single in (True, False)
        for name, nemesis in ALL.items()
        if (single or nemesis.batches) and (name, single) not in forms
    ]


async def _run_campaign(
    plan: Iterator[tuple[Nemesis, RunOptions]], deadline: float, fuzz_seed: int | None
) -> tuple[list[RunResult], FuzzResult | None, str]:
    """Run the plan until the deadline. Fuzzing is not a nemesis: it runs once per campaign, during an idle one."""
    runs: list[RunResult] = []
    fuzzing: asyncio.Task[FuzzResult] | None = None
    async with open_cluster() as cluster:
        try:
            for nemesis, options in plan:
                if time.monotonic() > deadline:
                    break
                if fuzz_seed is not None and fuzzing is None and nemesis.idle:
                    fuzzing = asyncio.create_task(run_fuzz_tests(fuzz_seed))
                runs.append(await _run_one(cluster, nemesis, options))
                _print_last(runs)
            if fuzz_seed is not None and fuzzing is None:
                fuzzing = asyncio.create_task(run_fuzz_tests(fuzz_seed))
            fuzzed = None if fuzzing is None else await fuzzing
        finally:
            if fuzzing is not None:
                fuzzing.cancel()
                await asyncio.wait({fuzzing})
        versions = await _versions(cluster)
    if fuzzed is not None:
        typer.echo(str(fuzzed))
    return runs, fuzzed, versions


def _print_last(runs: list[RunResult]) -> None:
    last = runs[-1]
    batches = "" if last.options.batch == 1 else ", batches"
    summary = (
        f"{last.nemesis}{batches}: {last.jobs:,} jobs, {last.faults} faults, settled after "
        f"{last.recovery_seconds:.1f} s, {last.seconds:.0f} s in all"
    )
    text = str(last) if last.verdict.violations else summary
    typer.echo(f"{time.strftime('%H:%M:%S')} {text} (so far {sum(run.jobs for run in runs):,} jobs)")


async def _run_one(cluster: Cluster, nemesis: Nemesis, options: RunOptions) -> RunResult:
    try:
        return await run_nemesis(cluster, nemesis, options)
    except Exception as error:  # noqa: BLE001  # an error of the suite or a timeout is a failure as well
        cluster.workers.kill_all()
        await cluster.heal()
        verdict = Verdict()
        verdict.add("suite", f"{type(error).__name__}: {error}")
        return RunResult(nemesis.name, options, 0, 0, 0.0, verdict)


async def _versions(cluster: Cluster) -> str:
    postgres = await cluster.query(lambda database: database.fetchval("SHOW server_version"))
    valkey = (await cluster.redis.info("server")).get("valkey_version", "?")
    return f"PostgreSQL {postgres.split()[0]}, Valkey {valkey}"


if __name__ == "__main__":
    typer.run(main)

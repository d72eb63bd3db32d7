"""The main job end to end: a mixed load, a worker in its own process, and a check of every outcome."""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from sqlalchemy import Select, func, select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from producers import JobHandle, JobRejected, Producer, ProducerError
from producers.wire import Result
from worker.database.models import LedgerRow, Post, User
from worker.database.session import create_engine
from worker.demo.plan import RETITLED, Plan, Step
from worker.demo.report import Report, Tally, Truth, as_json, summary, table
from worker.settings import Settings

QUEUE = "demo:queue"
# No outcome of any job for so long, and nothing more will come. Above the longest delay before a second try.
PATIENCE_SECONDS = 120.0


def run(settings: Settings, jobs: int, urls: dict[str, str]) -> bool:
    """Run the demo on the servers of `urls` and print what came of it; whether every job is accounted for."""
    person = sys.stdout.isatty()
    console = Console()
    quiet = Console(stderr=True, quiet=True)
    with _worker_process(settings, urls) as worker:
        try:
            report = asyncio.run(_demo(settings, jobs, worker, console if person else quiet))
        except (DemoError, ProducerError) as error:
            report = Report(trouble=str(error))
        if person:
            console.print(table(report), summary(report))
        else:
            print(json.dumps(as_json(report)))  # noqa: T201  # the command's output
        if not report.accounted:
            Console(stderr=True).print(f"Not all is accounted for. {report.trouble}\n{worker.log_tail()}", markup=False)
    return report.accounted


class DemoError(Exception):
    """The demo cannot go on."""


@dataclass(frozen=True)
class _Worker:
    process: "subprocess.Popen[bytes]"
    log: Path

    async def ended(self) -> None:
        """Raise as soon as the process is no more: nobody would ever answer."""
        while self.process.poll() is None:  # noqa: ASYNC110  # no event tells of another process's end
            await asyncio.sleep(0.2)
        raise DemoError(f"The worker ended with exit code {self.process.returncode}.")

    def log_tail(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()[-15:]
        return "\n".join(["The end of the worker's log:", *lines])


@contextmanager
def _worker_process(settings: Settings, urls: dict[str, str]) -> Iterator[_Worker]:
    with tempfile.TemporaryDirectory(prefix="worker-demo-") as folder:
        log = Path(folder) / "worker.log"
        environment = (
            os.environ
            | urls
            | {"WORKER_QUEUE": QUEUE, "WORKER_CONCURRENCY": str(settings.concurrency), "WORKER_CREATE_TABLES": "true"}
        )
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "worker", "run"], env=environment, stdout=output, stderr=output
            )
        try:
            yield _Worker(process, log)
        finally:
            process.terminate()
            try:
                process.wait(settings.shutdown_grace_seconds + 5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


async def _demo(settings: Settings, jobs: int, worker: _Worker, console: Console) -> Report:
    engine = create_engine(settings.database_url.get_secret_value(), pool_size=1, name="worker-demo")
    watch = asyncio.create_task(worker.ended())
    try:
        load = asyncio.create_task(_load(settings, jobs, engine, console))
        await asyncio.wait({watch, load}, return_when=asyncio.FIRST_COMPLETED)
        if not load.done():
            load.cancel()
            await asyncio.wait({load})
            await watch
        return await load
    finally:
        watch.cancel()
        await engine.dispose()


async def _load(settings: Settings, jobs: int, engine: AsyncEngine, console: Console) -> Report:
    report = Report()
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    plan = Plan(jobs, f"{time.time_ns():x}")  # a name that no earlier run on the same data has used
    async with Producer(settings.redis_url.get_secret_value(), queue=QUEUE, name="demo") as producer:
        with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
            waves = _Waves(producer, progress, jobs, report)
            async with AsyncSession(engine) as session:
                since = await session.scalar(select(func.now()))
            started = time.monotonic()
            users = await waves.send("users", plan.users())
            posts = await waves.send("posts", plan.posts(users))
            await waves.send("changes", plan.changes(users, posts))
            report.busy_seconds = time.monotonic() - started
    async with AsyncSession(engine) as session:
        report.truths = await _truths(session, report, plan, since)
    return report


class _Waves:
    """Sends waves of jobs and follows each job to its outcome."""

    def __init__(self, producer: Producer, progress: Progress, jobs: int, report: Report) -> None:
        self._producer = producer
        self._progress = progress
        self._task = progress.add_task("starting", total=jobs)
        self._report = report
        self._started = time.monotonic()
        self._patience = asyncio.timeout(None)

    async def send(self, name: str, steps: list[Step]) -> list[int]:
        """Send the jobs of a wave, wait for all of them, and return the ids that its creations gave, in order."""
        self._progress.update(self._task, description=name)
        handles = await self._producer.enqueue_many([step.message for step in steps])
        try:
            async with asyncio.timeout(PATIENCE_SECONDS) as self._patience:
                outcomes = await asyncio.gather(*(self._follow(handle) for handle in handles))
        except TimeoutError:
            raise DemoError(f"No job came to its outcome for {PATIENCE_SECONDS:g} s.") from None
        for step, outcome in zip(steps, outcomes, strict=True):
            self._count(step, outcome)
        return [outcome.r["id"] for outcome in outcomes if outcome.s and "id" in outcome.r]

    async def _follow(self, handle: JobHandle[Any]) -> Result:
        outcome = await handle.outcome()
        self._patience.reschedule(asyncio.get_running_loop().time() + PATIENCE_SECONDS)
        if not self._report.first_done_seconds:
            self._report.first_done_seconds = time.monotonic() - self._started
        self._progress.advance(self._task)
        return outcome

    def _count(self, step: Step, outcome: Result) -> None:
        tally = self._report.tallies.setdefault(step.message.job, Tally())
        tally.asked += 1
        match outcome.error:
            case None:
                tally.done += 1
            case JobRejected():
                tally.rejected += 1
            case _:
                tally.dead += 1
        tally.unexpected += outcome.s != step.done
        self._report.wait_ms.append(max(0, outcome.st - outcome.et))
        self._report.run_ms.append(max(0, outcome.ft - outcome.st))


async def _truths(session: AsyncSession, report: Report, plan: Plan, since: datetime | None) -> list[Truth]:
    """What the database holds of this run, beside what it must hold."""
    of_run = User.email.startswith(f"{plan.name}-")
    posts_of_run = select(func.count(Post.id)).join(Post.author).where(of_run)
    ledger = dict(
        (
            await session.execute(
                select(LedgerRow.outcome, func.count())
                .where(LedgerRow.recorded_at >= since, LedgerRow.job.in_(report.tallies))
                .group_by(LedgerRow.outcome)
            )
        )
        .tuples()
        .all()
    )
    tallies = report.tallies.values()
    return [
        Truth("users", plan.users_left, await _count(session, select(func.count(User.id)).where(of_run))),
        Truth(
            "users renamed",
            plan.renamed,
            await _count(session, select(func.count(User.id)).where(User.username.startswith(f"{plan.name}+"))),
        ),
        Truth("posts", plan.posts_left, await _count(session, posts_of_run)),
        Truth("posts retitled", plan.retitled, await _count(session, posts_of_run.where(Post.title == RETITLED))),
        Truth("ledger: done", sum(tally.done for tally in tallies), ledger.get("done", 0)),
        Truth("ledger: rejected", sum(tally.rejected for tally in tallies), ledger.get("rejected", 0)),
        Truth("ledger: dead", sum(tally.dead for tally in tallies), ledger.get("dead", 0)),
    ]


async def _count(session: AsyncSession, statement: Select[int]) -> int:
    return await session.scalar(statement) or 0

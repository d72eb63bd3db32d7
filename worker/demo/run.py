"""Sends the planned jobs to a worker in a process of its own, and compares the outcomes and rows with the plan."""

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
from typing import Any, NoReturn

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from sqlalchemy import Select, func, select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from producers import JobHandle, JobRejected, Producer, ProducerError
from producers.wire import Result
from worker.database.models import LedgerRow, Post, User
from worker.database.session import create_engine
from worker.demo.plan import NEW_TITLE, Plan, PlannedJob
from worker.demo.report import JobCounts, Report, RowCount, as_json, summary, table
from worker.settings import Settings

QUEUE = "demo:queue"
PATIENCE_SECONDS = 120.0
"""How long the demo waits for the next outcome. It is longer than the first backoff of a failed attempt."""


class DemoError(Exception):
    """The demo cannot continue."""


def run(settings: Settings, jobs: int, urls: dict[str, str]) -> bool:
    """Run the demo on the servers of `urls`, print its report, and return whether every job is accounted for."""
    is_terminal = sys.stdout.isatty()
    console, progress = Console(), Console(quiet=not is_terminal)
    with _worker_process(settings, urls) as worker:
        try:
            report = asyncio.run(_run_and_watch(settings, jobs, worker, progress))
        except (DemoError, ProducerError) as error:
            report = Report(error=str(error))
        if is_terminal:
            console.print(table(report), summary(report))
        else:
            print(json.dumps(as_json(report)))  # noqa: T201  # the command's output
        if not report.accounted:
            text = f"Jobs are unaccounted for. {report.error}\n{worker.log_tail()}"
            Console(stderr=True).print(text, markup=False)
    return report.accounted


@dataclass(frozen=True)
class _Worker:
    process: "subprocess.Popen[bytes]"
    log: Path

    async def wait_for_end(self) -> NoReturn:
        """Raise DemoError as soon as the process ends, because no job would be answered."""
        while self.process.poll() is None:  # noqa: ASYNC110  # no event reports the end of another process
            await asyncio.sleep(0.2)
        raise DemoError(f"The worker ended with exit code {self.process.returncode}.")

    def log_tail(self) -> str:
        """The last lines of the worker's log."""
        lines = self.log.read_text(errors="replace").splitlines()[-15:]
        return "\n".join(["The end of the worker's log:", *lines])


@contextmanager
def _worker_process(settings: Settings, urls: dict[str, str]) -> Iterator[_Worker]:
    variables = {"WORKER_QUEUE": QUEUE, "WORKER_CONCURRENCY": str(settings.concurrency), "WORKER_CREATE_TABLES": "true"}
    with tempfile.TemporaryDirectory(prefix="worker-demo-") as folder:
        log = Path(folder) / "worker.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "worker", "run"],
                env=os.environ | urls | variables,
                stdout=output,
                stderr=output,
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


async def _run_and_watch(settings: Settings, jobs: int, worker: _Worker, console: Console) -> Report:
    """Run the jobs, and give up if the worker ends."""
    engine = create_engine(settings.database_url.get_secret_value(), pool_size=1, name="worker-demo")
    watch = asyncio.create_task(worker.wait_for_end())
    load = asyncio.create_task(_run_jobs(settings, jobs, engine, console))
    try:
        await asyncio.wait({watch, load}, return_when=asyncio.FIRST_COMPLETED)
        return await (load if load.done() else watch)
    finally:
        watch.cancel()
        load.cancel()
        await asyncio.wait({watch, load})
        await engine.dispose()


async def _run_jobs(settings: Settings, jobs: int, engine: AsyncEngine, console: Console) -> Report:
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
        report.rows = await _count_rows(session, report, plan, since)
    return report


class _Waves:
    """Sends waves of jobs and waits for the outcome of each job."""

    def __init__(self, producer: Producer, progress: Progress, jobs: int, report: Report) -> None:
        self._producer = producer
        self._progress = progress
        self._task = progress.add_task("starting", total=jobs)
        self._report = report
        self._started = time.monotonic()
        self._timeout = asyncio.timeout(None)

    async def send(self, name: str, jobs: list[PlannedJob]) -> list[int]:
        """Send the jobs of a wave, wait for all of them, and return the ids of the created rows, in order."""
        self._progress.update(self._task, description=name)
        handles = await self._producer.enqueue_many([job.message for job in jobs])
        try:
            async with asyncio.timeout(PATIENCE_SECONDS) as self._timeout:
                results = await asyncio.gather(*(self._wait(handle) for handle in handles))
        except TimeoutError:
            raise DemoError(f"No job ended for {PATIENCE_SECONDS:g} s.") from None
        for job, result in zip(jobs, results, strict=True):
            self._count(job, result)
        return [result.r["id"] for result in results if result.s and "id" in result.r]

    async def _wait(self, handle: JobHandle[Any]) -> Result:
        result = await handle.outcome()
        self._timeout.reschedule(asyncio.get_running_loop().time() + PATIENCE_SECONDS)
        if not self._report.first_done_seconds:
            self._report.first_done_seconds = time.monotonic() - self._started
        self._progress.advance(self._task)
        return result

    def _count(self, job: PlannedJob, result: Result) -> None:
        counts = self._report.jobs.setdefault(job.message.job, JobCounts())
        counts.sent += 1
        match result.error:
            case None:
                counts.done += 1
            case JobRejected():
                counts.rejected += 1
            case _:
                counts.dead += 1
        counts.unexpected += result.s != job.done
        self._report.wait_ms.append(max(0, result.st - result.et))
        self._report.run_ms.append(max(0, result.ft - result.st))


async def _count_rows(session: AsyncSession, report: Report, plan: Plan, since: datetime | None) -> list[RowCount]:
    """The rows of this run, expected and found."""

    async def count(name: str, expected: int, statement: Select[int]) -> RowCount:
        return RowCount(name, expected, await session.scalar(statement) or 0)

    users = select(func.count(User.id))
    created_here = User.email.startswith(f"{plan.name}-")
    posts = select(func.count(Post.id)).join(Post.author).where(created_here)
    ledger = select(func.count()).where(LedgerRow.recorded_at >= since, LedgerRow.job.in_(report.jobs))
    rows = [
        await count("users", plan.users_left, users.where(created_here)),
        await count("users renamed", plan.renamed, users.where(User.username.startswith(f"{plan.name}+"))),
        await count("posts", plan.posts_left, posts),
        await count("posts retitled", plan.retitled, posts.where(Post.title == NEW_TITLE)),
    ]
    for outcome in ("done", "rejected", "dead"):
        expected = sum(getattr(counts, outcome) for counts in report.jobs.values())
        rows.append(await count(f"ledger: {outcome}", expected, ledger.where(LedgerRow.outcome == outcome)))
    return rows

"""The transaction alone, no queue: create_user with its ledger row and stored reply, beside the usual handler.

    python -m benchmarks.transaction

One process, 16 at a time, on an embedded PostgreSQL with all its durability. The two take turns, so that whatever else
the machine does meets both; the figure is the median of the ratios of neighbours.
"""

import asyncio
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop
from rich.console import Console
from rich.table import Table
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from benchmarks.peers import usual
from benchmarks.peers.plan import HASH
from benchmarks.peers.tables import session_scope
from worker.database.session import create_engine, create_sessions, database_url
from worker.database.startup import create_tables
from worker.embedded import PostgresServer
from worker.engine.transaction import Transaction
from worker.jobs import REGISTRY
from worker.model.job import ClaimedJob, Lease
from worker.model.outcome import Done

PROMISED_RATIO = 1.3
AT_ONCE = 16
JOBS = 2000
ROUNDS = 5

Job = Callable[[str], Awaitable[None]]


async def rate(job: Job, jobs: int) -> float:
    """Jobs a second."""
    names = iter([uuid.uuid4().hex for _ in range(jobs)])

    async def lane() -> None:
        for name in names:
            await job(name)

    started = time.perf_counter()
    await asyncio.gather(*(lane() for _ in range(AT_ONCE)))
    return jobs / (time.perf_counter() - started)


async def measure(url: str, *, rounds: int = ROUNDS) -> list[tuple[float, float]]:
    """Rates of ours and of the usual handler, a pair a round."""
    engine = create_engine(url, pool_size=AT_ONCE)
    await create_tables(engine)
    transaction = Transaction(create_sessions(engine), REGISTRY, max_tries=5, timeout_seconds=30)

    async def ours(name: str) -> None:
        fields = {"email": f"{name}@example.com", "username": name, "hashed_password": HASH}
        attempt = await transaction.run(ClaimedJob(name, "create_user", fields, 1, Lease(b"", b"", b"")))
        assert isinstance(attempt.result, Done), attempt

    usual_engine = create_async_engine(database_url(url), pool_pre_ping=True, pool_size=AT_ONCE, max_overflow=0)
    sessions = async_sessionmaker(usual_engine, expire_on_commit=False)

    async def theirs(name: str) -> None:
        async with session_scope(sessions) as session:
            fields = {"email": f"{name}@example.com", "username": name, "hashed_password": HASH}
            await usual.create_user(session, **fields)

    for job in (ours, theirs):
        await rate(job, JOBS // 4)
    pairs = [(await rate(ours, JOBS), await rate(theirs, JOBS)) for _ in range(rounds)]
    await engine.dispose()
    await usual_engine.dispose()
    return pairs


def main() -> None:
    """Measure, show, and end with 1 when the promised ratio is not reached."""
    with tempfile.TemporaryDirectory(prefix="benchmark-", dir="/tmp") as folder:  # PostgreSQL must reach it
        Path(folder).chmod(0o711)
        with PostgresServer(Path(folder) / "postgres") as server:
            pairs = uvloop.run(measure(server.url))
    ratios = [ours / theirs for ours, theirs in pairs]
    table = Table(title=f"create_user, {AT_ONCE} at a time, one process", title_justify="left")
    for column in ("", "jobs/s, median", "from", "to"):
        table.add_column(column, justify="left" if not column else "right")
    rows = {"exactly once, with ledger and reply": [pair[0] for pair in pairs], "usual": [pair[1] for pair in pairs]}
    for name, rates in rows.items():
        table.add_row(name, *(f"{value:,.0f}" for value in (statistics.median(rates), min(rates), max(rates))))
    table.add_section()
    table.add_row("ratio", *(f"{value:.2f}" for value in (statistics.median(ratios), min(ratios), max(ratios))))
    Console().print(table)
    if statistics.median(ratios) < PROMISED_RATIO:
        sys.exit(f"the ratio promised is {PROMISED_RATIO}")


if __name__ == "__main__":
    main()

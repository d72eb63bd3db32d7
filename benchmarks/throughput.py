"""Throughput: jobs per second in the middle 90 % of a load, measured alike for every system.

All jobs are enqueued before the worker starts. The first 5 % leave out the start of the process and its connections.

With a database, the rate is computed afterwards from `users.created_at`, which PostgreSQL sets to the start of each
transaction: 90 % of the jobs, divided by the time between the 5th and the 95th percentile. No system carries a probe;
meanwhile only the largest id is read, five times per second. In a mixed load, the created users represent all jobs,
since the jobs are shuffled evenly. At the end, the tables must hold exactly what the jobs leave behind; a note reports
any difference. Without a database, each worker process counts its jobs.
"""

import time
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.adapters import workload
from benchmarks.adapters.base import read_counters
from benchmarks.adapters.workload import POOL_SIZE, TableState
from benchmarks.results import NotMeasured, Sample
from benchmarks.servers import Database
from benchmarks.systems import System
from benchmarks.testbed import LIMIT_SECONDS, Testbed, WorkerProcess, await_progress

_EDGE = 0.05

_LARGEST_ID = "SELECT coalesce(max(id), 0) FROM users"
_RATE = """
SELECT count(*), extract(epoch FROM percentile_disc(1 - $2::float8) WITHIN GROUP (ORDER BY created_at)
                                  - percentile_disc($2) WITHIN GROUP (ORDER BY created_at))::float8
FROM users WHERE id > $1
"""
_STATE = """
SELECT (SELECT count(*) FROM users), (SELECT count(*) FROM posts),
       (SELECT count(*) FROM users WHERE username LIKE 'renamed%'),
       (SELECT count(*) FROM posts WHERE title LIKE 'Retitled %')
"""


def database_rate(testbed: Testbed, system: System, name: str, jobs: int) -> Sample:
    """The rate of jobs that write to the database."""
    jobs = workload.whole_cycles(jobs)
    created, expected = workload.created_users(name, jobs), workload.final_state(name, jobs)
    with testbed.servers.fresh() as database:
        existing = _fill_tables(database, jobs) if name == "mixed" else 0
        testbed.call(system, database.url, "enqueue", name, str(jobs))
        with testbed.worker(system, database.url) as worker:
            goal = existing + created
            await_progress([worker], lambda: database.row(_LARGEST_ID)[0], goal, poll_seconds=0.2)
            state = _await_state(worker, database, expected)
        rows, seconds = database.row(_RATE, existing, _EDGE)
    if rows < created / 2 or not seconds:
        raise NotMeasured(f"{rows:,} of {created:,} users were created within {LIMIT_SECONDS:g} s")
    return Sample(jobs * (1 - 2 * _EDGE) * rows / created / seconds, describe_difference(state, expected))


def noop_rate(testbed: Testbed, system: System, jobs: int, *, processes: int = 1) -> Sample:
    """The rate from the moment when all workers work and 5 % of the jobs are counted, until 95 % are."""
    with testbed.servers.fresh() as database, TemporaryDirectory() as counters, ExitStack() as stack:
        system = replace(system, settings={**system.settings, "COUNTERS": counters})
        testbed.call(system, database.url, "enqueue", "noop", str(jobs))
        workers = [
            stack.enter_context(testbed.worker(system, database.url, command="noop-worker", number=number))
            for number in range(processes)
        ]

        def count_once_all_work() -> int:
            counts = [count for count in read_counters(Path(counters)) if count]
            return sum(counts) if len(counts) == processes else 0

        first, started = await_progress(workers, count_once_all_work, jobs * _EDGE, poll_seconds=0.01)
        goal = jobs * (1 - _EDGE)
        last, ended = await_progress(workers, lambda: sum(read_counters(Path(counters))), goal, poll_seconds=0.01)
    if not first or ended <= started:
        raise NotMeasured(f"{last:,} of {jobs:,} jobs were done, {first:,} of them before all workers worked")
    return Sample((last - first) / (ended - started), "" if last >= goal else f"{last:,} of {jobs:,} jobs were done")


def describe_difference(state: TableState, expected: TableState) -> str:
    """How the tables differ from what the jobs leave behind; empty when they do not."""
    pairs = zip(asdict(state).items(), asdict(expected).values(), strict=True)
    wrong = [f"{name} {found:,} instead of {wanted:,}" for (name, found), wanted in pairs if found != wanted]
    return f"wrong rows: {', '.join(wrong)}" if wrong else ""


def _fill_tables(database: Database, jobs: int) -> int:
    """Make the users and posts that a mixed load updates and deletes; return the number of users."""
    deleted = workload.deleted_users(jobs)
    users = POOL_SIZE + deleted
    database.execute(
        f"""INSERT INTO users (email, username, hashed_password)
            SELECT 'user' || n || '@example.com', 'user' || n, '{workload.PASSWORD_HASH}'
            FROM generate_series(1, {users}) n""",  # noqa: S608  # numbers and a constant
        # One for each user of the pool, one that is deleted by itself, and one that is deleted with its author.
        f"""INSERT INTO posts (title, content, author_id)
            SELECT 'Post ' || n, repeat('They weave algebra. ', 10),
                   CASE WHEN n <= {users} THEN (n - 1) % {POOL_SIZE} + 1 ELSE n - {deleted} END
            FROM generate_series(1, {users + deleted}) n""",  # noqa: S608
        "ANALYZE users",
        "ANALYZE posts",
        "CHECKPOINT",
    )
    return users


def _await_state(worker: WorkerProcess, database: Database, expected: TableState) -> TableState:
    """The state of the tables when it is as expected, or no longer changes."""
    state, previous = TableState(*database.row(_STATE)), None
    deadline = time.monotonic() + LIMIT_SECONDS
    while state not in (expected, previous) and time.monotonic() < deadline:
        worker.check()
        time.sleep(2)
        state, previous = TableState(*database.row(_STATE)), state
    return state

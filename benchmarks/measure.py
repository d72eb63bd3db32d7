"""How fast jobs are done: the same way of measuring for every system.

All jobs are enqueued before the worker starts, and the rate is taken over the middle 90 % of them: the start of the
process and its first connections are not in it.

With a database, the rate is read afterwards from `users.created_at`, which PostgreSQL itself sets in every system's
insert (the start of the transaction): 90 % of the jobs divided by the time between the 5th and the 95th percentile. So
nothing is added to any system, and what the driver asks meanwhile (the largest id, five times a second) is answered
from the end of an index. In a mixed load the created users stand for all jobs: the kinds are shuffled evenly, and
every system takes them in about the order in which they were sent. At the end the tables must hold exactly what the
jobs should have left; otherwise jobs were lost or done twice, and that is said.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.peers import plan
from benchmarks.peers.common import counted
from benchmarks.servers import Database, Servers
from benchmarks.systems import NotMeasured, Programs, System, Worker

LIMIT_SECONDS = 60.0
"""For one measurement, enqueueing not included."""
STALL_SECONDS = 12.0
"""No progress for so long, and the rest is given up. Above the start of the slowest worker."""
_LOOK_SECONDS = 0.2
_WITH_TABLES = {"procrastinate"}
_EDGE = 0.05

_RATE = """
SELECT count(*), extract(epoch FROM percentile_disc(1 - $2::float8) WITHIN GROUP (ORDER BY created_at)
                                  - percentile_disc($2) WITHIN GROUP (ORDER BY created_at))::float8
FROM users WHERE id > $1
"""
_STATE = """
SELECT (SELECT count(*) FROM users), (SELECT count(*) FROM posts),
       (SELECT count(*) FROM users WHERE username LIKE 'renamed%'),
       (SELECT count(*) FROM posts WHERE title LIKE 'Retitled%')
"""


@dataclass(frozen=True)
class Rate:
    """Jobs a second, and what is to be said about it."""

    per_second: float
    remark: str = ""


@dataclass(frozen=True)
class Bench:
    """What a measurement needs."""

    servers: Servers
    programs: Programs

    def database_rate(self, system: System, scenario: str, jobs: int) -> Rate:
        """The rate of jobs that write to the database."""
        jobs = plan.whole(jobs) if scenario != "refused" else jobs // plan.REFUSED_OF * plan.REFUSED_OF
        with self.servers.fresh() as database:
            before = _prepare(database, jobs) if scenario == "mixed" else 0
            self.prepare(system, database.url)
            self.programs.call(system, database.url, "enqueue", scenario, str(jobs))
            created = plan.created(scenario, jobs)
            expected = plan.after(jobs) if scenario == "mixed" else plan.State(created, 0, 0, 0)
            with self.programs.worker(system, database.url) as worker:
                _await(worker, lambda: database.row("SELECT max(id) FROM users")[0] or 0, before + created)
                state = _settled(worker, database, expected)
            rows, seconds = database.row(_RATE, before, _EDGE)
        if rows < created / 2 or not seconds:
            raise NotMeasured(f"{rows:,} of {created:,} users were created within {LIMIT_SECONDS:g} s")
        return Rate(jobs * (1 - 2 * _EDGE) * rows / created / seconds, difference(state, expected))

    def noop_rate(self, system: System, jobs: int, *, processes: int = 1) -> Rate:
        """The rate of jobs that only count."""
        with self.servers.fresh() as database:
            self.prepare(system, database.url)
            # Our contract has no job without a purpose: ours carries a whole create_user, five times as many bytes.
            scenario = "noop" if system.peer else "create_user"
            self.programs.call(system, database.url, "enqueue", scenario, str(jobs))
            return self.counted_rate(system, database.url, jobs, processes=processes)

    def counted_rate(self, system: System, database_url: str, jobs: int, *, processes: int = 1) -> Rate:
        """The rate of the first of what is queued, by the workers' own counters."""
        with ExitStack() as stack:
            self.programs.forget_counts()
            workers = [
                stack.enter_context(self.programs.worker(system, database_url, number)) for number in range(processes)
            ]
            return _counted(workers, self.programs.counters, jobs)

    def prepare(self, system: System, database_url: str) -> None:
        """Let a system make what it needs in a fresh database."""
        if system.peer in _WITH_TABLES:
            self.programs.call(system, database_url, "prepare")


def _prepare(database: Database, jobs: int) -> int:
    """Make the users and posts that a mixed load changes and deletes; how many users."""
    doomed = plan.deleted(jobs)
    users = plan.POOL + doomed
    database.execute(
        f"""INSERT INTO users (email, username, hashed_password)
            SELECT 'user' || n || '@example.com', 'user' || n, '{plan.HASH}' FROM generate_series(1, {users}) n""",  # noqa: S608  # numbers
        # One for each of the pool, one that is deleted by itself, and one that goes with its author.
        f"""INSERT INTO posts (title, content, author_id)
            SELECT 'Post ' || n, repeat('They weave algebra. ', 10),
                   CASE WHEN n <= {users} THEN (n - 1) % {plan.POOL} + 1 ELSE n - {doomed} END
            FROM generate_series(1, {users + doomed}) n""",  # noqa: S608
        "ANALYZE users",
        "ANALYZE posts",
        "CHECKPOINT",
    )
    return users


def _await(worker: Worker, progress: Callable[[], int], goal: int) -> None:
    """Return when the goal is reached, or nothing moves any more, or the time is over."""
    deadline = time.monotonic() + LIMIT_SECONDS
    reached, moved = 0, time.monotonic()
    while reached < goal and time.monotonic() < min(deadline, moved + STALL_SECONDS):
        worker.check()
        time.sleep(_LOOK_SECONDS)
        now = progress()
        if now > reached:
            reached, moved = now, time.monotonic()


def _settled(worker: Worker, database: Database, expected: plan.State) -> plan.State:
    """What the tables hold when it is what they should, or does not change any more."""
    state, before = plan.State(*database.row(_STATE)), None
    deadline = time.monotonic() + LIMIT_SECONDS
    while state not in (expected, before) and time.monotonic() < deadline:
        worker.check()
        time.sleep(2)
        state, before = plan.State(*database.row(_STATE)), state
    return state


def difference(state: plan.State, expected: plan.State) -> str:
    """What the tables hold otherwise than they should, in words; empty when nothing."""
    pairs = zip(asdict(state).items(), asdict(expected).values(), strict=True)
    wrong = [f"{name} {found:,} instead of {wanted:,}" for (name, found), wanted in pairs if found != wanted]
    return f"not all was done as asked: {', '.join(wrong)}" if wrong else ""


def _counted(workers: Sequence[Worker], counters: Path, jobs: int) -> Rate:
    """The rate from the moment at which all workers work, and 5 % is done, to that at which 95 % is."""
    started = moved = time.monotonic()
    first: tuple[int, float] | None = None
    seen = 0
    while True:
        time.sleep(0.01)
        counts, now = counted(counters), time.monotonic()
        if sum(counts) > seen:
            seen, moved = sum(counts), now
        if first is None and seen >= jobs * _EDGE and len([count for count in counts if count]) >= len(workers):
            first = seen, now
        over = now > started + LIMIT_SECONDS or now > moved + STALL_SECONDS
        if seen >= jobs * (1 - _EDGE) or over:
            break
        for worker in workers:
            worker.check()
    if first is None or seen == first[0]:
        raise NotMeasured(f"{seen:,} of {jobs:,} jobs were counted within {now - started:.0f} s")
    return Rate((seen - first[0]) / (moved - first[1]), f"{seen:,} of {jobs:,} jobs were done" if over else "")

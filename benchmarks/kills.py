"""What a kill costs: every system loses its worker five times, in the middle of the same load, by SIGKILL.

All jobs are enqueued first. One worker process (with all that it has started) is killed whenever a certain share of the
users is there and some milliseconds are over (so that not every kill comes just after a commit), and is started again
at once. The shares and the milliseconds are drawn once, and are the same for all. After the last kill everything has to
come back by itself, within a time that is the same for all.

`users` takes any name twice here, for every system: with the unique columns that it otherwise has, the second run of a
job would fail, and a job that was done twice could not be told from one that was done once. So the rows are the
effects, and nothing is added to any system's handlers: a job is lost, or late, when its user is not there, and was
done twice when its user is there twice.

Watching goes on after all is there: what was done but not yet struck off the queue when its worker died is delivered
again only when its time is over.
"""

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from benchmarks.measure import Bench
from benchmarks.peers import plan
from benchmarks.results import Sample
from benchmarks.servers import Database
from benchmarks.systems import NAMES, OURS_BATCH, OURS_SESSION, System, Worker

FIGURES = LOST, DOUBLED, RECOVERY = "kill_lost", "kill_doubled", "kill_recovery"
PATIENCE_SECONDS = 100.0
"""After the last kill. What is not there by then counts as lost or late, and the recovery as this long."""
QUIET_SECONDS = 25.0
"""No row for so long: nothing comes any more. Above what any system was told (10 s) and its looks for it take."""

_rng = random.Random(plan.SEED)  # noqa: S311  # repeatable on purpose
MOMENTS = tuple((share + _rng.uniform(-0.04, 0.04), _rng.uniform(0, 0.03)) for share in (0.10, 0.25, 0.45, 0.60, 0.80))
"""The shares of the load at which the worker is killed, and how many seconds later."""

_TOLD = {"HANDLERS": "best", "LEASE_SECONDS": "10"}
SYSTEMS = (
    System(NAMES["arq"], "arq", {"HANDLERS": "best"}),
    System(f"{NAMES['arq']}, job_timeout 10 s", "arq", _TOLD),
    *(System(NAMES[peer], peer, _TOLD) for peer in ("saq", "taskiq", "streaq")),
    OURS_SESSION,
    OURS_BATCH,
)

# Plain indexes instead of unique ones: a row costs what it costs otherwise.
_NOTHING_UNIQUE = (
    "ALTER TABLE users DROP CONSTRAINT uq_users_username",
    "DROP INDEX ix_users_email",
    "CREATE INDEX ON users (username)",
    "CREATE INDEX ON users (email)",
    "CHECKPOINT",
)
_ROWS = "SELECT count(*) FROM users"
_STATE = """
SELECT count(*), count(*) FILTER (WHERE times > 1), coalesce(sum(times), 0)
FROM (SELECT count(*) AS times FROM users GROUP BY username) AS jobs
"""
_LOOK_SECONDS, _LOOK_BACK_SECONDS = 0.01, 0.05


@dataclass
class Watch:
    """What came back after the last kill."""

    jobs: int
    done: int = 0
    doubled: int = 0
    recovery: float | None = None
    """Seconds until all jobs were done."""
    _rows: int = 0
    _moved: float = 0

    def see(self, seconds: float, done: int, doubled: int, rows: int) -> bool:
        """Take in what is there so long after the kill; whether more can come."""
        if rows > self._rows:
            self._rows, self._moved = rows, seconds
        self.done, self.doubled = done, doubled
        if self.recovery is None and done >= self.jobs:
            self.recovery = seconds
        quiet = seconds >= self._moved + QUIET_SECONDS
        return seconds < PATIENCE_SECONDS and not (quiet and self.recovery is not None)

    def samples(self, system: str, remark: str) -> Iterator[Sample]:
        """The figures."""
        yield Sample(LOST, system, self.jobs - self.done, remark)
        yield Sample(DOUBLED, system, self.doubled)
        yield Sample(RECOVERY, system, PATIENCE_SECONDS if self.recovery is None else self.recovery)


@dataclass(frozen=True)
class Killing:
    """One system's load and its kills."""

    bench: Bench
    system: System
    jobs: int

    def samples(self) -> Iterator[Sample]:
        """Do all of it."""
        programs = self.bench.programs
        with self.bench.servers.fresh() as database:
            database.execute(*_NOTHING_UNIQUE)
            self.bench.prepare(self.system, database.url)
            programs.call(self.system, database.url, "enqueue", "create_user", str(self.jobs))
            killed, idle = time.monotonic(), []
            for number, (share, pause) in enumerate(MOMENTS, start=1):
                with programs.worker(self.system, database.url) as worker:
                    if (rows := self._await(worker, database, share)) < self.jobs * share:
                        idle.append(f"kill {number} met an idle worker, at {rows:,} rows")
                    time.sleep(pause)
                    killed = time.monotonic()
                    worker.kill()
            with programs.worker(self.system, database.url) as worker:
                watch = self._watch(worker, lambda: database.row(_STATE), killed)
        yield from watch.samples(self.system.label, ", ".join(idle))

    def _await(self, worker: Worker, database: Database, share: float) -> int:
        """How many rows there are when the share is reached, or no more come."""
        rows, moved = -1, time.monotonic()
        while time.monotonic() < moved + QUIET_SECONDS:
            worker.check()
            (now,) = database.row(_ROWS)
            if now > rows:
                rows, moved = now, time.monotonic()
            if rows >= self.jobs * share:
                break
            time.sleep(_LOOK_SECONDS)
        return rows

    def _watch(self, worker: Worker, look: Callable[[], tuple[int, ...]], killed: float) -> Watch:
        watch = Watch(self.jobs)
        while True:
            done, doubled, rows = look()
            if not watch.see(time.monotonic() - killed, done, doubled, int(rows)):
                return watch
            worker.check()
            time.sleep(_LOOK_BACK_SECONDS)

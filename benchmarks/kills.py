"""Killed workers: each system loses its worker five times during the same load, by SIGKILL.

All jobs are enqueued first. The worker and its children are killed when a share of the users exists and a few
milliseconds have passed, so that not every kill comes just after a commit. The next worker starts at once. Shares and
delays are the same for all systems. After the last kill, the system has to recover by itself.

The unique constraints of `users` are dropped, since they would hide a second run of a job. So the rows are the effects,
and no handler carries a probe. Observation goes on after all jobs are done: a job that was done but not acknowledged
when its worker died is delivered again after the lease.
"""

import random
import time
from dataclasses import dataclass, replace

from benchmarks.adapters.workload import SEED
from benchmarks.catalog import RECOVERY_LIMIT_SECONDS
from benchmarks.results import Sample
from benchmarks.systems import ARQ, PEERS, USERPOST, USERPOST_BATCHES, System
from benchmarks.testbed import Testbed, await_progress

LEASE_SECONDS = 10
QUIET_SECONDS = 25.0
"""No new row for this time: no more effects are to come. Longer than the lease and the systems' own checks for it."""

_rng = random.Random(SEED)  # noqa: S311  # repeatable on purpose
KILL_POINTS = tuple(
    (share + _rng.uniform(-0.04, 0.04), _rng.uniform(0, 0.03)) for share in (0.10, 0.25, 0.45, 0.60, 0.80)
)
"""The share of the load that is done, and a delay in seconds, for each kill."""

_LEASE = {"LEASE_SECONDS": str(LEASE_SECONDS)}
SYSTEMS = (
    ARQ,
    replace(ARQ, label=f"{ARQ.label}, job_timeout {LEASE_SECONDS} s", settings=_LEASE),
    *(replace(system, settings=_LEASE) for system in PEERS if system is not ARQ),
    USERPOST,
    USERPOST_BATCHES,
)

# Plain indexes replace the unique ones, so that a row costs as much as before.
_DROP_UNIQUE_CONSTRAINTS = (
    "ALTER TABLE users DROP CONSTRAINT uq_users_username",
    "DROP INDEX ix_users_email",
    "CREATE INDEX ON users (username)",
    "CREATE INDEX ON users (email)",
    "CHECKPOINT",
)
_ROWS = "SELECT count(*) FROM users"
_EFFECTS = """
SELECT count(*), count(*) FILTER (WHERE times > 1), coalesce(sum(times), 0)::bigint
FROM (SELECT count(*) AS times FROM users GROUP BY username) AS jobs
"""


@dataclass
class Recovery:
    """What is observed after the last kill."""

    jobs: int
    done: int = 0
    doubled: int = 0
    seconds: float = RECOVERY_LIMIT_SECONDS
    """From the kill until all jobs were done."""
    _rows: int = 0
    _moved: float = 0

    def observe(self, done: int, doubled: int, rows: int, *, seconds: float) -> bool:
        """Record the effects at this time after the kill; return whether more can follow."""
        if rows > self._rows:
            self._rows, self._moved = rows, seconds
        if done >= self.jobs > self.done:
            self.seconds = seconds
        self.done, self.doubled = done, doubled
        complete = done >= self.jobs and seconds >= self._moved + QUIET_SECONDS
        return seconds < RECOVERY_LIMIT_SECONDS and not complete


def kill_workers(testbed: Testbed, system: System, jobs: int) -> list[Sample]:
    """Lost jobs, doubled jobs and the recovery time of a system."""
    with testbed.servers.fresh() as database:
        database.execute(*_DROP_UNIQUE_CONSTRAINTS)
        testbed.call(system, database.url, "enqueue", "create_user", str(jobs))
        killed, notes = time.monotonic(), []
        for number, (share, delay) in enumerate(KILL_POINTS, start=1):
            with testbed.worker(system, database.url) as worker:
                goal = jobs * share
                rows, _ = await_progress(
                    [worker], lambda: database.row(_ROWS)[0], goal, poll_seconds=0.01, stall_seconds=QUIET_SECONDS
                )
                if rows < goal:
                    notes.append(f"kill {number} met an idle worker, at {rows:,} rows")
                time.sleep(delay)
                killed = time.monotonic()
                worker.kill()
        with testbed.worker(system, database.url) as worker:
            recovery = Recovery(jobs)
            while recovery.observe(*database.row(_EFFECTS), seconds=time.monotonic() - killed):
                worker.check()
                time.sleep(0.05)
    return [
        Sample(recovery.jobs - recovery.done, ", ".join(notes)), Sample(recovery.doubled), Sample(recovery.seconds)
    ]  # fmt: skip

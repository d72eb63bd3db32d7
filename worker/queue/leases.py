"""The leases of one worker: renewed until their jobs are settled, and what happens when one is lost."""

from collections.abc import Iterable

import structlog

from worker.engine.job import Job
from worker.engine.job_log import loggable
from worker.queue.queue import Lease, Queue, Renewal

log = structlog.get_logger("worker.lease")


class Leases:
    """All that this worker has claimed and not yet settled."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._jobs: dict[Lease, Job] = {}

    def __len__(self) -> int:
        return len(self._jobs)

    def hold(self, job: Job) -> None:
        """A job was claimed."""
        self._jobs[job.claimed.lease] = job

    def forget(self, lease: Lease) -> None:
        """A job was settled, or is another worker's."""
        self._jobs.pop(lease, None)

    async def renew(self) -> None:
        """Renew all leases in one call. A job whose lease was lost is stopped: another worker may have it."""
        leases = [lease for lease, job in self._jobs.items() if not job.lost]
        if not leases:
            return
        for lease, renewal in zip(leases, await self._queue.renew(leases), strict=True):
            job = self._jobs.get(lease)
            if job is None or renewal is Renewal.RENEWED:
                continue
            if renewal is Renewal.LOST:
                job.lost = True
                log.warning("lease_lost", job_id=loggable(lease.job_id))
                interrupt([job])
            else:
                _wish_cancelled(job)

    def cancel(self, job_id: bytes) -> None:
        """Somebody wants a job cancelled, which may be one of these."""
        for job in list(self._jobs.values()):
            if job.claimed.lease.job_id == job_id:
                _wish_cancelled(job)


def interrupt(jobs: Iterable[Job]) -> None:
    """Stop jobs that run. A COMMIT is never interrupted: what it comes to is the job's outcome."""
    for task in {job.task for job in jobs if not any(mate.claim.committing for mate in job.lane)}:
        if task is not None:
            task.cancel()


def _wish_cancelled(job: Job) -> None:
    if not job.cancelled:
        job.cancelled = True
        # One that has not begun is cancelled when its turn comes: the ledger has to be told, which takes a session.
        if job.started_ms:
            interrupt([job])

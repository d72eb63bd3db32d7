"""The leases of one worker: renewed until their jobs are settled, and how a cancellation reaches them.

cancel.lua cancels a job that was never claimed. For any other it adds the id to `keys.ABORT`. If the job has a lease,
it also publishes the id on the control channel, from which the pipeline passes it to `Leases.cancel`; otherwise it
makes the job due. A message that is lost is made up for: renew.lua answers with the request, and so does claim.lua. The
task that runs the job, alone or in a batch, is cancelled unless it commits; the executor then records the outcome
`cancelled`, if the ledger has none, and runs the rest of the batch one by one.
"""

from collections.abc import Iterable

import structlog

from worker.model.job import ClaimedJob, Lease
from worker.model.log_context import safe_job_id
from worker.queue.queue import Queue, Renewal

log = structlog.get_logger("worker.lease")


class Leases:
    """Every job that this worker has claimed and not yet settled."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._jobs: dict[Lease, ClaimedJob] = {}

    def __len__(self) -> int:
        return len(self._jobs)

    def hold(self, job: ClaimedJob) -> None:
        """Renew the job's lease from now on."""
        self._jobs[job.lease] = job

    def drop(self, lease: Lease) -> None:
        """Renew the lease no more: its job was settled, or another worker has it."""
        self._jobs.pop(lease, None)

    async def renew(self) -> None:
        """Renew all leases in one call. A job whose lease was lost is stopped: another worker may have it."""
        leases = [lease for lease, job in self._jobs.items() if not job.progress.lease_lost]
        if not leases:
            return
        for lease, renewal in zip(leases, await self._queue.renew(leases), strict=True):
            job = self._jobs.get(lease)
            if job is None or renewal is Renewal.RENEWED:
                continue
            if renewal is Renewal.LOST:
                job.progress.lease_lost = True
                log.warning("lease_lost", job_id=safe_job_id(lease.job_id))
                cancel_unless_committing([job])
            else:
                _request_cancel(job)

    def cancel(self, job_id: bytes) -> None:
        """A client requests the cancellation of a job, which may be one of these."""
        for job in list(self._jobs.values()):
            if job.lease.job_id == job_id:
                _request_cancel(job)


def cancel_unless_committing(jobs: Iterable[ClaimedJob]) -> None:
    """Cancel the tasks that run these jobs. A COMMIT is never interrupted: its answer is the job's outcome."""
    tasks = {job.progress.task for job in jobs if not any(member.progress.committing for member in job.progress.batch)}
    for task in tasks:
        if task is not None:
            task.cancel()


def _request_cancel(job: ClaimedJob) -> None:
    if not job.progress.cancel_requested:
        job.progress.cancel_requested = True
        # A job that has not begun is cancelled when its turn comes: the ledger must record it, which takes a session.
        if job.progress.started_ms:
            cancel_unless_committing([job])

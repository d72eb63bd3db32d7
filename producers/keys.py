"""Every Redis key and channel name, in one place. Those of jobs are stock arq's."""

DEFAULT_QUEUE = "arq:queue"

JOB_PREFIX = "arq:job:"
RESULT_PREFIX = "arq:result:"
IN_PROGRESS_PREFIX = "arq:in-progress:"
RETRY_PREFIX = "arq:retry:"
IDEMPOTENCY_PREFIX = "arq:idempotency:"


def job(job_id: str) -> str:
    """String: the payload of a job that is queued or running."""
    return JOB_PREFIX + job_id


def result(job_id: str) -> str:
    """String: the outcome of a job that ended, kept for the result's time to live."""
    return RESULT_PREFIX + job_id


def in_progress(job_id: str) -> str:
    """String with an expiry: there while a worker runs the job."""
    return IN_PROGRESS_PREFIX + job_id


def retry(job_id: str) -> str:
    """String: how many tries of the job have begun."""
    return RETRY_PREFIX + job_id


def idempotency(key: str) -> str:
    """String with an expiry: the digest of the content that was accepted under a caller's idempotency key."""
    return IDEMPOTENCY_PREFIX + key


def clock(queue: str) -> str:
    """String: the last score given out in this queue, in microseconds; the next one is larger."""
    return f"{queue}:clock"


def wake(queue: str) -> str:
    """Channel: something became due in this queue."""
    return f"{queue}:wake"


def health(queue: str) -> str:
    """String with an expiry: arq's own sign of life, written by each worker of the queue."""
    return f"{queue}:health-check"

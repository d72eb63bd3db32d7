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
    """Hash: the last score given out in this queue, in microseconds (the next one is larger), and Redis's own time."""
    return f"{queue}:clock"


def wake(queue: str) -> str:
    """Channel: something became due in this queue."""
    return f"{queue}:wake"


def health(queue: str) -> str:
    """String with an expiry: arq's own sign of life, written by each worker of the queue."""
    return f"{queue}:health-check"


def dead_payload(job_id: str) -> str:
    """The payload of a dead letter, whole and of whatever type it was."""
    return f"arq:dead:{job_id}"


def dead(queue: str) -> str:
    """Sorted set: the ids of dead letters by the time of their death, in milliseconds."""
    return f"{queue}:dead"


def dead_letters(queue: str) -> str:
    """Hash: job id -> what is known of its death, as JSON."""
    return f"{queue}:dead-letters"


def holders(queue: str) -> str:
    """Hash: ordering key -> the id of the job that holds it."""
    return f"{queue}:holders"


def parked(queue: str, ordering_key: str) -> str:
    """Sorted set: the jobs that wait behind the holder of this ordering key, by their places in the queue."""
    return f"{queue}:parked:{ordering_key}"


def results(queue: str, producer: str) -> str:
    """Channel: ids of ended jobs that this producer enqueued, separated by spaces."""
    return f"{queue}:results:{producer}"


def control(queue: str) -> str:
    """Channel: ids of jobs to cancel."""
    return f"{queue}:control"


def workers(queue: str) -> str:
    """Hash: worker name -> its last sign of life, as JSON."""
    return f"{queue}:workers"


def tallies(queue: str) -> str:
    """Hash: what the settlements of this queue have added up, see `worker/queue/counters.py`."""
    return f"{queue}:tallies"

"""Every Redis key and channel name, and the score of parked jobs, which is not a time.

The keys of jobs are stock arq's. Scripts contain no literal key names: `lua_names` generates what they use from this
module.
"""

import inspect
import re
from collections.abc import Callable

DEFAULT_QUEUE = "arq:queue"

ABORT = "arq:abort"
"""Sorted set: the ids of jobs whose cancellation was requested, by the time of the request in milliseconds."""

PARKED_MS = 1e15
"""Score of a parked job: it waits behind another job of its ordering key. Later than any due time."""


def job(job_id: str) -> str:
    """String: the payload of a job that is queued or running."""
    return f"arq:job:{job_id}"


def result(job_id: str) -> str:
    """String with an expiry: the outcome of a job that has ended."""
    return f"arq:result:{job_id}"


def in_progress(job_id: str) -> str:
    """String with an expiry: the lease, present while a worker holds the job."""
    return f"arq:in-progress:{job_id}"


def retry(job_id: str) -> str:
    """String: how many attempts of the job have begun."""
    return f"arq:retry:{job_id}"


def idempotency(key: str) -> str:
    """String with an expiry: the digest of the content that was accepted under an idempotency key."""
    return f"arq:idempotency:{key}"


def dead_payload(job_id: str) -> str:
    """The payload of a dead letter, whole and of whatever type it was."""
    return f"arq:dead:{job_id}"


def dead(queue: str) -> str:
    """Sorted set: the ids of dead letters, by their time of death in milliseconds."""
    return f"{queue}:dead"


def dead_letters(queue: str) -> str:
    """Hash: job id -> the record of its death, as JSON."""
    return f"{queue}:dead-letters"


def holders(queue: str) -> str:
    """Hash: ordering key -> the id of the job that holds it."""
    return f"{queue}:holders"


def parked(queue: str, ordering_key: str) -> str:
    """Sorted set: the jobs parked behind the holder of this ordering key, by their own scores."""
    return f"{queue}:parked:{ordering_key}"


def claim(queue: str, claimer: str) -> str:
    """List with an expiry: the token of this claimer's last claim, then the id and score of each job."""
    return f"{queue}:claim:{claimer}"


def clock(queue: str) -> str:
    """Hash: the queue clock's last noted time in microseconds, and the time of Redis's own clock then.

    Scores of jobs that are due at once are always greater than the last noted time.
    """
    return f"{queue}:clock"


def counters(queue: str) -> str:
    """Hash: field -> the sum of what settlements of this queue have counted."""
    return f"{queue}:counters"


def config(queue: str) -> str:
    """Hash: settings of the workers that others need; `result_ms` is how long they keep a result."""
    return f"{queue}:config"


def workers(queue: str) -> str:
    """Hash: worker name -> its last heartbeat, as JSON."""
    return f"{queue}:workers"


def health(queue: str) -> str:
    """String with an expiry: arq's own heartbeat, written by each worker of the queue."""
    return f"{queue}:health-check"


def foreign(key: str) -> str:
    """Where a key of another type, written by a foreign client, is moved."""
    return f"{key}:foreign"


def wake(queue: str) -> str:
    """Channel: a job of this queue became due."""
    return f"{queue}:wake"


def control(queue: str) -> str:
    """Channel: ids of running jobs to cancel."""
    return f"{queue}:control"


def results(queue: str, producer: str) -> str:
    """Channel: ids of ended jobs that this producer enqueued, separated by spaces."""
    return f"{queue}:results:{producer}"


LUA_FUNCTIONS: dict[str, Callable[..., str]] = {
    "job_key": job,
    "result_key": result,
    "lease_key": in_progress,
    "attempts_key": retry,
    "dead_payload_key": dead_payload,
    "dead_key": dead,
    "dead_letters_key": dead_letters,
    "holders_key": holders,
    "parked_key": parked,
    "claim_key": claim,
    "clock_key": clock,
    "counters_key": counters,
    "config_key": config,
    "foreign_key": foreign,
}
"""The functions that scripts call, by their names in Lua."""


def lua_names(script: str) -> str:
    """The names of keys that a Lua script uses, as the Lua source that comes before it.

    >>> print(lua_names("redis.call('ZREM', ABORT_KEY, id); redis.call('DEL', parked_key(queue, key))"), end="")
    local ABORT_KEY = 'arq:abort'
    local function parked_key(queue, ordering_key) return queue .. ':parked:' .. ordering_key end
    """
    names = {"ABORT_KEY": f"local ABORT_KEY = '{ABORT}'", "PARKED_MS": f"local PARKED_MS = {PARKED_MS:.0f}"}
    for name, key in LUA_FUNCTIONS.items():
        parameters = list(inspect.signature(key).parameters)
        pattern = key(*(f"{{{parameter}}}" for parameter in parameters))
        parts = [part for part in re.split(r"(\{\w+\})", pattern) if part]
        text = " .. ".join(part[1:-1] if part.startswith("{") else f"'{part}'" for part in parts)
        names[name] = f"local function {name}({', '.join(parameters)}) return {text} end"
    return "".join(f"{line}\n" for name, line in names.items() if name in script)

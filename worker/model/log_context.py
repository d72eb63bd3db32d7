"""Which job is tried here: what every line of the log says that is written meanwhile, by a handler or a library too.

A try sets one variable. What a line says of it is put together when a line is written, and most tries have only one.
"""

from collections.abc import Container
from contextvars import ContextVar

from producers import ids

UNKNOWN = "unknown"
"""The job of what could not be read, or has a name that nobody here knows: it may be anything."""

# Not the claim itself: a connection that is opened during a try keeps that try's context for as long as it is open, and
# must not keep a payload with it.
_tried: ContextVar[tuple[str | None, str, int]] = ContextVar("tried", default=(None, "", 0))


def trying(job_id: str, job: str, tries: int) -> None:
    """From here on this task tries one job, of a name that is known, for the so-manieth time."""
    _tried.set((job_id, job, tries))


def trying_batch(job: str, size: int) -> None:
    """From here on this task tries so many jobs of one name together."""
    _tried.set((None, job, size))


def fields() -> dict[str, object]:
    """What a line says of the job that is tried here; nothing when none is.

    >>> from contextvars import copy_context
    >>> def told(set_it, *arguments):
    ...     set_it(*arguments)
    ...     return fields()
    >>> copy_context().run(told, trying, "import-7@user:42", "update_user", 2)
    {'job_id': 'import-7@user:42', 'job': 'update_user', 'try': 2}
    >>> copy_context().run(told, trying_batch, "create_user", 64)
    {'job': 'create_user', 'batch': 64}
    >>> copy_context().run(told, trying, "ada@example.com, hunter2", "unknown", 1)
    {'job_id': None, 'job': 'unknown', 'try': 1}
    """
    job_id, job, number = _tried.get()
    if not job:
        return {}
    if job_id is None:
        return {"job": job, "batch": number}
    return {"job_id": told_id(job_id), "job": job, "try": number}


def told_id(job_id: str) -> str | None:
    """The id as logs may hold it: None when it is no job id, for then it may be anything."""
    return job_id if ids.is_job_id(job_id) else None


def told_name(job: str, names: Container[str]) -> str:
    """The name as logs may hold it: `unknown` when it is not one of those that are known here.

    >>> told_name("create_user", {"create_user"}), told_name("ada.lovelace", {"create_user"})
    ('create_user', 'unknown')
    """
    return job if job in names else UNKNOWN

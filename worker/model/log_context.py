"""The current job, added to every log line that is written while it runs, by a handler or a library too.

An attempt sets one variable. The fields are made when a line is written, and most attempts write only one.
"""

from collections.abc import Container
from contextvars import ContextVar

from producers import ids

UNKNOWN = "unknown"
"""The name of a job whose payload cannot be read, or whose real name, which may be anything, is not known here."""

# Not the job itself: a connection that is opened during an attempt keeps the attempt's context for as long as it is
# open, and must not keep a payload with it.
_current: ContextVar[tuple[str | None, str, int]] = ContextVar("current_job", default=(None, "", 0))


def set_current_job(job_id: str, name: str, attempt: int) -> None:
    """From here on, this task runs an attempt of this job."""
    _current.set((job_id, name, attempt))


def set_current_batch(name: str, size: int) -> None:
    """From here on, this task runs a batch of so many jobs of one type."""
    _current.set((None, name, size))


def current_fields() -> dict[str, object]:
    """The current job's fields of a log line; empty outside of an attempt.

    >>> from contextvars import copy_context
    >>> def fields_after(setter, *arguments):
    ...     setter(*arguments)
    ...     return current_fields()
    >>> copy_context().run(fields_after, set_current_job, "import-7@user:42", "update_user", 2)
    {'job_id': 'import-7@user:42', 'job': 'update_user', 'attempt': 2}
    >>> copy_context().run(fields_after, set_current_batch, "create_user", 64)
    {'job': 'create_user', 'batch': 64}
    >>> copy_context().run(fields_after, set_current_job, "ada@example.com, hunter2", "unknown", 1)
    {'job_id': None, 'job': 'unknown', 'attempt': 1}
    """
    job_id, name, number = _current.get()
    if not name:
        return {}
    if job_id is None:
        return {"job": name, "batch": number}
    return {"job_id": safe_job_id(job_id), "job": name, "attempt": number}


def safe_job_id(job_id: str | bytes) -> str | None:
    """The id as logs may hold it: None when it does not have the form of a job id, for it may then be anything.

    >>> safe_job_id(b"import-7@user:42"), safe_job_id("ada@example.com, hunter2"), safe_job_id(b"\\xff")
    ('import-7@user:42', None, None)
    """
    text = job_id.decode("ascii", "replace") if isinstance(job_id, bytes) else job_id
    return text if ids.is_job_id(text) else None


def safe_job_name(name: str, known: Container[str]) -> str:
    """The job type's name as logs may hold it: `unknown` when it is not one of the known names.

    >>> safe_job_name("create_user", {"create_user"}), safe_job_name("ada.lovelace", {"create_user"})
    ('create_user', 'unknown')
    """
    return name if name in known else UNKNOWN

"""The jobs room: one handler a message. Importing it fills the registry."""

from worker.jobs import cleanup as _cleanup
from worker.jobs import posts as _posts
from worker.jobs import users as _users
from worker.model.registry import (
    REGISTRY,
    SCHEDULE,
    AnyJobType,
    JobType,
    Rejection,
    Retention,
    ScheduledJob,
    job,
    scheduled,
)

__all__ = [
    "REGISTRY",
    "SCHEDULE",
    "AnyJobType",
    "JobType",
    "Rejection",
    "Retention",
    "ScheduledJob",
    "job",
    "scheduled",
]

# The imports above are for their effect; naming them says so.
_ROOMS = (_cleanup, _posts, _users)

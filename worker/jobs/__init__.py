"""The handlers: one for each message, and the scheduled clean-up. Importing this package fills the registry."""

from worker.jobs import cleanup, posts, users
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
    "cleanup",
    "job",
    "posts",
    "scheduled",
    "users",
]

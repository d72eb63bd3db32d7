"""Claimed jobs as the tests build them."""

from typing import Any

from worker.model.job import ClaimedJob, Lease

HASH = "$argon2id$v=19$m=65536,t=3,p=4$c29tZSBzYWx0IGhlcmU$bm90IGEgcmVhbCBoYXNoLCBvbmx5IGl0cyBmb3Jt"


def user_fields(name: str = "ada", /, **changes: Any) -> dict[str, Any]:
    """The fields of a job that creates a user of this name."""
    return {"email": f"{name}@example.com", "username": name, "hashed_password": HASH} | changes


def claimed_job(
    name: str = "create_user",
    fields: dict[str, Any] | None = None,
    *,
    job_id: str = "job-1",
    attempt: int = 1,
    **facts: Any,
) -> ClaimedJob:
    """A job as a worker holds it; by default one that creates the user `ada`.

    Args:
        name: of its job type.
        fields: of its message; default: those of `user_fields()`.
        job_id: its id, and that of its lease.
        attempt: its number.
        facts: all else that a `ClaimedJob` has.
    """
    lease = Lease(job_id.encode(), b"token", b"0")
    return ClaimedJob(job_id, name, user_fields() if fields is None else fields, attempt, lease, **facts)

"""Enqueue jobs for users and posts, and wait for their outcomes.

    async with Producer("redis://localhost:6379/0") as producer:
        job = await producer.create_user(email="ada@example.com", username="ada", hashed_password=encoded)
        user = await job.result(timeout=5)

Importing this package loads pydantic and arq's Redis client, but no database driver and no part of the worker.
"""

from producers._encoding import Request
from producers.errors import (
    EnqueueError,
    EnqueueUnconfirmed,
    IdempotencyConflict,
    InvalidMessage,
    JobCancelled,
    JobDead,
    JobError,
    JobNotFound,
    JobRejected,
    PartialEnqueueError,
    ProducerError,
    QueueFull,
    RedisRefused,
    RedisUnavailable,
    ResultTimeout,
)
from producers.handle import JobHandle
from producers.job_status import JobStatus
from producers.messages import (
    CreatePost,
    CreateUser,
    Deleted,
    DeletePost,
    DeleteUser,
    Message,
    Post,
    PostChanges,
    Reply,
    UpdatePost,
    UpdateUser,
    User,
    UserChanges,
)
from producers.producer import Producer
from producers.sync import SyncJobHandle, SyncProducer

__all__ = [
    "CreatePost",
    "CreateUser",
    "DeletePost",
    "DeleteUser",
    "Deleted",
    "EnqueueError",
    "EnqueueUnconfirmed",
    "IdempotencyConflict",
    "InvalidMessage",
    "JobCancelled",
    "JobDead",
    "JobError",
    "JobHandle",
    "JobNotFound",
    "JobRejected",
    "JobStatus",
    "Message",
    "PartialEnqueueError",
    "Post",
    "PostChanges",
    "Producer",
    "ProducerError",
    "QueueFull",
    "RedisRefused",
    "RedisUnavailable",
    "Reply",
    "Request",
    "ResultTimeout",
    "SyncJobHandle",
    "SyncProducer",
    "UpdatePost",
    "UpdateUser",
    "User",
    "UserChanges",
]

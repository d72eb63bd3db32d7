"""Enqueueing jobs from asyncio code."""

import os
import socket
import sys
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

from producers import ids, keys, wire
from producers._encoding import Options, Request, build, encode
from producers._redis import ANSWER_TIMEOUT_SECONDS, close_redis, connect
from producers._result_waiter import ResultWaiter
from producers._sender import Sender
from producers.errors import EnqueueError, PartialEnqueueError
from producers.handle import JobHandle
from producers.messages import (
    CreatePost,
    CreateUser,
    Deleted,
    DeletePost,
    DeleteUser,
    Message,
    Post,
    Reply,
    UpdatePost,
    UpdateUser,
    User,
)

ReplyT = TypeVar("ReplyT", bound=Reply)

MAX_NAME_LENGTH = 256
"""In characters. Workers refuse jobs with a longer `producer` header."""


class Producer:
    """Enqueues jobs and waits for their outcomes. An async context manager.

    Args:
        url: the URL of Redis; default: the environment variable `REDIS_URL`.
        queue: the name of the queue.
        max_queued: raise `QueueFull` while the queue holds this many jobs; 0: no limit.
        timeout_seconds: how long one enqueue is retried while Redis does not answer.
        name: the first part of the jobs' `producer` header; default: the host's name.

    Raises:
        ValueError: the URL is missing or not a Redis URL, the timeout is not positive, or the name is too long.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        queue: str = keys.DEFAULT_QUEUE,
        max_queued: int = 0,
        timeout_seconds: float = 10.0,
        name: str | None = None,
    ) -> None:
        url = url or os.environ.get("REDIS_URL")
        if not url:
            raise ValueError("REDIS_URL is not set: pass a URL, or export REDIS_URL=redis://localhost:6379/0")
        self._queue = queue
        # Unique, because workers notify each producer of its own ended jobs only.
        name = name or socket.gethostname()
        if len(name) > MAX_NAME_LENGTH:
            raise ValueError(f"name must have at most {MAX_NAME_LENGTH} characters")
        self._me = me = f"{name}:{ids.new_id()}"
        self._headers = wire.headers_json({"producer": me})
        if timeout_seconds <= 0:
            raise ValueError("timeout_seconds must be more than 0")
        # One call to a silent Redis must not take longer than the whole enqueue.
        answer_timeout_seconds = min(ANSWER_TIMEOUT_SECONDS, timeout_seconds)
        self._redis = connect(url, queue=queue, answer_timeout_seconds=answer_timeout_seconds)
        self._sender = Sender(self._redis, queue, max_queued=max_queued, timeout_seconds=timeout_seconds)
        self._results = ResultWaiter(self._redis, queue, keys.results(queue, me))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections and cancel all waiting `result` calls."""
        await self._results.close()
        await close_redis(self._redis)

    # One typed method per job type. All take the same `Options`.

    async def create_user(
        self,
        *,
        email: str,
        username: str,
        hashed_password: str,
        is_active: bool = True,
        **options: Unpack[Options],
    ) -> JobHandle[User]:
        """Create a user; `hashed_password` is an encoded hash. Errors: see `enqueue`."""
        fields = {
            "email": email,
            "username": username,
            "hashed_password": hashed_password,
            "is_active": is_active,
        }
        return await self.enqueue(build(CreateUser, fields), **options)

    async def update_user(
        self,
        user_id: int,
        *,
        email: str | None = None,
        username: str | None = None,
        hashed_password: str | None = None,
        is_active: bool | None = None,
        **options: Unpack[Options],
    ) -> JobHandle[User]:
        """Change the given fields of a user. Errors: see `enqueue`."""
        fields = {
            "email": email,
            "username": username,
            "hashed_password": hashed_password,
            "is_active": is_active,
        }
        changes = {name: value for name, value in fields.items() if value is not None}
        return await self.enqueue(build(UpdateUser, {"user_id": user_id, "changes": changes}), **options)

    async def delete_user(self, user_id: int, **options: Unpack[Options]) -> JobHandle[Deleted]:
        """Delete a user and that user's posts. Errors: see `enqueue`."""
        return await self.enqueue(build(DeleteUser, {"user_id": user_id}), **options)

    async def create_post(
        self, *, author_id: int, title: str, content: str, **options: Unpack[Options]
    ) -> JobHandle[Post]:
        """Create a post. Errors: see `enqueue`."""
        fields = {"author_id": author_id, "title": title, "content": content}
        return await self.enqueue(build(CreatePost, fields), **options)

    async def update_post(
        self,
        post_id: int,
        *,
        title: str | None = None,
        content: str | None = None,
        **options: Unpack[Options],
    ) -> JobHandle[Post]:
        """Change the given fields of a post. Errors: see `enqueue`."""
        changes = {name: value for name, value in (("title", title), ("content", content)) if value is not None}
        return await self.enqueue(build(UpdatePost, {"post_id": post_id, "changes": changes}), **options)

    async def delete_post(self, post_id: int, **options: Unpack[Options]) -> JobHandle[Deleted]:
        """Delete a post. Errors: see `enqueue`."""
        return await self.enqueue(build(DeletePost, {"post_id": post_id}), **options)

    async def enqueue(self, message: Message[ReplyT], **options: Unpack[Options]) -> JobHandle[ReplyT]:
        """Put a job into the queue.

        While Redis does not answer, this retries with the same id for `timeout_seconds`.

        Raises:
            InvalidMessage, ValueError: nothing was sent.
            RedisUnavailable, RedisRefused, IdempotencyConflict, QueueFull: the job was not accepted.
            EnqueueUnconfirmed: the job may have been accepted; repeat the call with the error's idempotency key.
        """
        if not _traced():
            return await self._enqueue(message, options, self._headers)
        from producers import _tracing  # noqa: PLC0415  # OpenTelemetry is optional

        with _tracing.sending(message.job, self._queue) as span:
            handle = await self._enqueue(message, options, _tracing.headers(span, self._me))
            span.set_attribute("messaging.message.id", handle.job_id)
            return handle

    async def _enqueue(self, message: Message[ReplyT], options: Options, headers: bytes) -> JobHandle[ReplyT]:
        job = Request(message, **options).encode(headers) if options else encode(message, headers)
        (accepted,) = await self._sender.send([job])
        if isinstance(accepted, EnqueueError):
            raise accepted
        return self._handle(job.job_id, message.reply_type(), accepted=accepted)

    async def enqueue_many(self, jobs: Iterable[Message[Any] | Request[Any]]) -> list[JobHandle[Any]]:
        """Put many jobs into the queue, hundreds per round trip. Returns their handles in the same order.

        Raises:
            PartialEnqueueError: not all jobs were accepted; it has a handle or an error for each.
        """
        if not _traced():
            return await self._enqueue_many(jobs, self._headers)
        from producers import _tracing  # noqa: PLC0415  # as above

        # One span for all: each job gets its own in the worker.
        with _tracing.sending("jobs", self._queue) as span:
            handles = await self._enqueue_many(jobs, _tracing.headers(span, self._me))
            span.set_attribute("messaging.batch.message_count", len(handles))
            return handles

    async def _enqueue_many(self, jobs: Iterable[Message[Any] | Request[Any]], headers: bytes) -> list[JobHandle[Any]]:
        handles: list[JobHandle[Any]] = []
        outcomes: list[JobHandle[Any] | EnqueueError] = []
        encoded = (job.encode(headers) if isinstance(job, Request) else encode(job, headers) for job in jobs)
        async for piece, answers in self._sender.send_all(encoded):
            for job, accepted in zip(piece, answers, strict=True):
                if isinstance(accepted, EnqueueError):
                    outcomes.append(accepted)
                else:
                    handles.append(self._handle(job.job_id, job.reply, accepted=accepted))
                    outcomes.append(handles[-1])
        if len(handles) < len(outcomes):
            raise PartialEnqueueError(outcomes)
        return handles

    def job(self, job_id: str, reply: type[ReplyT]) -> JobHandle[ReplyT]:
        """A handle on a job that was enqueued elsewhere or earlier.

        >>> Producer("redis://localhost").job("import-7@user:42", User)
        <JobHandle import-7@user:42>
        """
        return self._handle(job_id, reply, accepted=False)

    def _handle(self, job_id: str, reply: type[ReplyT], *, accepted: bool) -> JobHandle[ReplyT]:
        return JobHandle(job_id, reply, accepted=accepted, redis=self._redis, queue=self._queue, results=self._results)


def _traced() -> bool:
    """Whether the application has loaded OpenTelemetry. Its configuration decides whether spans are recorded."""
    return sys.modules.get("opentelemetry.trace") is not None

"""Enqueueing jobs from blocking code: a producer on its own thread."""

import asyncio
import threading
from collections.abc import Coroutine, Iterable
from concurrent.futures import CancelledError
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, Unpack

from producers import keys
from producers._encoding import Options, Request
from producers.handle import JobHandle
from producers.job_status import JobStatus
from producers.messages import Deleted, Message, Post, Reply, User
from producers.producer import Producer
from producers.wire import Result

ReplyT = TypeVar("ReplyT", bound=Reply)
T = TypeVar("T")

_CLOSED = "this SyncProducer is closed: make a new one"


class SyncProducer:
    """`Producer` without `async`: the same arguments, methods and errors.

    A context manager, safe to share between threads. Its event loop runs on a daemon thread. Threads do not survive a
    fork: create a producer in each process.
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
        self._producer = Producer(url, queue=queue, max_queued=max_queued, timeout_seconds=timeout_seconds, name=name)
        self._loop = asyncio.new_event_loop()
        self._lock = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._loop.run_forever, name="sync-producer", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections and end the thread. Calls in progress in other threads raise RuntimeError.

        Closing again does nothing.
        """
        with self._lock:
            if self._closed:
                return
            self._closed = True
        try:
            asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    async def _end(self) -> None:
        # A call of another thread would wait forever for a loop that has stopped.
        calls = asyncio.all_tasks() - {asyncio.current_task()}
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        await self._producer.close()

    def create_user(
        self,
        *,
        email: str,
        username: str,
        hashed_password: str,
        is_active: bool = True,
        **options: Unpack[Options],
    ) -> "SyncJobHandle[User]":
        """See `Producer.create_user`."""
        return self._enqueue(
            self._producer.create_user(
                email=email,
                username=username,
                hashed_password=hashed_password,
                is_active=is_active,
                **options,
            )
        )

    def update_user(
        self,
        user_id: int,
        *,
        email: str | None = None,
        username: str | None = None,
        hashed_password: str | None = None,
        is_active: bool | None = None,
        **options: Unpack[Options],
    ) -> "SyncJobHandle[User]":
        """See `Producer.update_user`."""
        return self._enqueue(
            self._producer.update_user(
                user_id,
                email=email,
                username=username,
                hashed_password=hashed_password,
                is_active=is_active,
                **options,
            )
        )

    def delete_user(self, user_id: int, **options: Unpack[Options]) -> "SyncJobHandle[Deleted]":
        """See `Producer.delete_user`."""
        return self._enqueue(self._producer.delete_user(user_id, **options))

    def create_post(
        self, *, author_id: int, title: str, content: str, **options: Unpack[Options]
    ) -> "SyncJobHandle[Post]":
        """See `Producer.create_post`."""
        return self._enqueue(self._producer.create_post(author_id=author_id, title=title, content=content, **options))

    def update_post(
        self,
        post_id: int,
        *,
        title: str | None = None,
        content: str | None = None,
        **options: Unpack[Options],
    ) -> "SyncJobHandle[Post]":
        """See `Producer.update_post`."""
        return self._enqueue(self._producer.update_post(post_id, title=title, content=content, **options))

    def delete_post(self, post_id: int, **options: Unpack[Options]) -> "SyncJobHandle[Deleted]":
        """See `Producer.delete_post`."""
        return self._enqueue(self._producer.delete_post(post_id, **options))

    def enqueue(self, message: Message[ReplyT], **options: Unpack[Options]) -> "SyncJobHandle[ReplyT]":
        """See `Producer.enqueue`."""
        return self._enqueue(self._producer.enqueue(message, **options))

    def enqueue_many(self, jobs: Iterable[Message[Any] | Request[Any]]) -> "list[SyncJobHandle[Any]]":
        """See `Producer.enqueue_many`. `jobs` is consumed on the producer's thread."""
        return [SyncJobHandle(handle, self) for handle in self._run(self._producer.enqueue_many(jobs))]

    def job(self, job_id: str, reply: type[ReplyT]) -> "SyncJobHandle[ReplyT]":
        """See `Producer.job`."""
        return SyncJobHandle(self._producer.job(job_id, reply), self)

    def _enqueue(self, call: Coroutine[Any, Any, JobHandle[ReplyT]]) -> "SyncJobHandle[ReplyT]":
        return SyncJobHandle(self._run(call), self)

    def _run(self, call: Coroutine[Any, Any, T]) -> T:
        with self._lock:
            if self._closed:
                call.close()
                raise RuntimeError(_CLOSED)
            future = asyncio.run_coroutine_threadsafe(call, self._loop)
        try:
            return future.result()
        except CancelledError:
            raise RuntimeError(_CLOSED) from None
        except BaseException:
            # Ctrl-C ends the wait, and must also end the call.
            future.cancel()
            raise


class SyncJobHandle(Generic[ReplyT]):
    """`JobHandle` without `async`."""

    def __init__(self, handle: JobHandle[ReplyT], producer: SyncProducer) -> None:
        self._handle = handle
        self._producer = producer
        self.job_id = handle.job_id
        self.accepted = handle.accepted

    def __repr__(self) -> str:
        return f"<SyncJobHandle {self.job_id}>"

    def status(self) -> JobStatus:
        """See `JobHandle.status`."""
        return self._producer._run(self._handle.status())  # noqa: SLF001  # the handle belongs to the producer

    def result(self, timeout: float | None = None) -> ReplyT:
        """See `JobHandle.result`."""
        return self._producer._run(self._handle.result(timeout))  # noqa: SLF001

    def outcome(self, timeout: float | None = None) -> Result:
        """See `JobHandle.outcome`."""
        return self._producer._run(self._handle.outcome(timeout))  # noqa: SLF001

    def cancel(self) -> JobStatus:
        """See `JobHandle.cancel`."""
        return self._producer._run(self._handle.cancel())  # noqa: SLF001

"""Real servers, workers as real processes, and a mixed load with hot ordering keys."""

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import asyncpg  # type: ignore[import-untyped]

from producers import (
    CreatePost,
    CreateUser,
    DeletePost,
    DeleteUser,
    JobDead,
    JobError,
    JobHandle,
    JobRejected,
    Message,
    PostChanges,
    Producer,
    Request,
    UpdatePost,
    UpdateUser,
    UserChanges,
)
from tests.faults import oracle
from worker.embedded import PostgresServer, ValkeyServer

HASH = "$argon2id$v=19$m=65536,t=3,p=4$c29tZXNhbHRzYWx0$" + "A" * 43
LEASE_SECONDS = 3.0
HOT_USERS = 8
QUIET_SECONDS = 60.0


class Workers:
    """Some `worker run` processes, numbered; each may be ended in any way and begun again."""

    def __init__(self, environment: dict[str, str], folder: Path) -> None:
        self._environment = os.environ | environment
        self._folder = folder
        self.processes: dict[int, subprocess.Popen[bytes]] = {}
        self.starts: Counter[int] = Counter()
        self.longest_start_seconds = 0.0
        self._began: dict[int, float] = {}

    def start(self, number: int) -> subprocess.Popen[bytes]:
        with (self._folder / f"worker-{number}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "worker", "run"], env=self._environment, stdout=log, stderr=log
            )
        self.processes[number] = process
        self._began[number] = time.monotonic()
        self.starts[number] += 1
        return process

    async def started(self, number: int, *, seconds: float = 20.0) -> None:
        """Wait until the last start of a worker has come to its end."""
        log = self._folder / f"worker-{number}.log"
        process = self.processes[number]
        deadline = time.monotonic() + seconds
        while log.read_bytes().count(b'"worker_started"') < self.starts[number]:
            assert process.poll() is None, f"worker {number} ended with {process.returncode}"
            assert time.monotonic() < deadline, f"worker {number} did not start within {seconds} s"
            await asyncio.sleep(0.02)
        if (began := self._began.pop(number, None)) is not None:
            self.longest_start_seconds = max(self.longest_start_seconds, time.monotonic() - began)

    def kill(self, number: int) -> None:
        """End a worker as a power cut does."""
        self.processes[number].kill()
        self.processes[number].wait()

    def stop(self, number: int, *, seconds: float = 40.0) -> int:
        """End a worker as a deployment does; its exit code."""
        self.processes[number].send_signal(signal.SIGTERM)
        return self.processes[number].wait(seconds)

    def logs(self) -> str:
        return "".join(path.read_text(errors="replace") for path in sorted(self._folder.glob("worker-*.log")))

    def end(self) -> None:
        for process in self.processes.values():
            if process.poll() is None:
                process.kill()
                process.wait()


class Stage:
    """The servers, the workers, a producer and the oracle's connection."""

    def __init__(self, folder: Path, seed: int, **settings: str) -> None:
        print(f"seed {seed}")  # noqa: T201  # what repeats a failure
        self.random = random.Random(seed)  # noqa: S311  # repeatable, not secret
        self.seed = seed
        self.postgres = PostgresServer(folder / "postgres")
        self.valkey = ValkeyServer(folder / "valkey")
        self._folder = folder
        self._settings = settings
        self.handles: list[JobHandle[Any]] = []
        self.changes: dict[int, list[str]] = defaultdict(list)
        self._number = 0

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self.postgres.start)
        await asyncio.to_thread(self.valkey.start)
        environment = {
            "DATABASE_URL": self.postgres.url,
            "REDIS_URL": self.valkey.url,
            "WORKER_LEASE_SECONDS": str(LEASE_SECONDS),
            **self._settings,
        }
        self.workers = Workers(environment, self._folder)
        self.producer = Producer(self.valkey.url, timeout_seconds=60)
        self.workers.start(0)
        first = await self.producer.create_user(email="first@example.com", username="first", hashed_password=HASH)
        await first.result(60)
        await self.observe(oracle.install)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.producer.close()
        self.workers.end()
        await asyncio.to_thread(self.valkey.stop)
        await asyncio.to_thread(self.postgres.stop, "immediate")

    async def observe(self, look: Any, *arguments: Any) -> Any:
        """Let the oracle look, on a connection of its own."""
        connection = await asyncpg.connect(self.postgres.url)
        try:
            return await look(connection, *arguments)
        finally:
            await connection.close()

    async def seeded(self, *, users: int = HOT_USERS) -> tuple[list[int], list[int]]:
        """Users and posts that the load is about; their ids."""
        users = [await self.producer.enqueue(self._user()) for _ in range(users)]
        user_ids = [(await user.result(60)).id for user in users]
        posts = [await self.producer.enqueue(self._post(user_id)) for user_id in user_ids]
        self.handles += [*users, *posts]
        return user_ids, [(await post.result(60)).id for post in posts]

    async def load(self, jobs: int, users: list[int], posts: list[int], *, chunk: int = 50) -> None:
        """Enqueue a mixed load, in chunks, as fast as Redis takes it."""
        for start in range(0, jobs, chunk):
            requests = [self._job(users, posts) for _ in range(min(chunk, jobs - start))]
            self.handles += await self.producer.enqueue_many(requests)

    async def steady_load(self, users: list[int], posts: list[int], until: asyncio.Event) -> None:
        """Enqueue a few jobs many times a second, so that there is something to do all the time, and no more."""
        while not until.is_set():
            await self.load(10, users, posts)
            with suppress(TimeoutError):
                async with asyncio.timeout(0.1):
                    await until.wait()

    async def ended(self, job_ids: list[str], *, seconds: float = QUIET_SECONDS) -> None:
        """Wait until none of these jobs is in the queue."""
        async with asyncio.timeout(seconds):
            while any(await self.producer._redis.execute_command("ZMSCORE", "arq:queue", *job_ids)):
                await asyncio.sleep(0.02)

    async def quiet(self, *, seconds: float = QUIET_SECONDS) -> None:
        """Wait until nothing is left in the queue."""
        async with asyncio.timeout(seconds):
            while await self.producer._redis.zcard("arq:queue"):
                await asyncio.sleep(0.05)

    async def verdict(self, *, seconds: float = QUIET_SECONDS) -> oracle.Verdict:
        """Wait until every job has its outcome, and let the oracle judge."""
        deadline = time.monotonic() + seconds
        outcomes = {}
        for handle in self.handles:
            outcomes[handle.job_id] = await _outcome(handle, max(1.0, deadline - time.monotonic()))
        verdict: oracle.Verdict = await self.observe(oracle.check, outcomes, self.changes)
        return verdict

    def _job(self, users: list[int], posts: list[int]) -> Request[Any]:
        kind = self.random.choices(("user", "post", "rename", "retitle", "absent"), (30, 20, 30, 10, 10))[0]
        match kind:
            case "user":
                return Request(self._user())
            case "post":
                return Request(self._post(self.random.choice(users)))
            case "rename":
                return Request(self.rename(self.random.choice(users)))
            case "retitle":
                title = PostChanges(title=f"title {self._next()}")
                return Request(UpdatePost(post_id=self.random.choice(posts), changes=title))
            case _:
                absent: Message[Any] = self.random.choice((DeleteUser(user_id=2**62), DeletePost(post_id=2**62)))
                return Request(absent)

    def rename(self, user_id: int) -> UpdateUser:
        name = f"renamed-{self._next()}"
        self.changes[user_id].append(name)
        return UpdateUser(user_id=user_id, changes=UserChanges(username=name))

    def _user(self) -> CreateUser:
        number = self._next()
        return CreateUser(email=f"u{number}@example.com", username=f"u{number}", hashed_password=HASH)

    def _post(self, author_id: int) -> CreatePost:
        return CreatePost(author_id=author_id, title=f"title {self._next()}", content="Words. " * 20)

    def _next(self) -> int:
        self._number += 1
        return self._number


async def _outcome(handle: JobHandle[Any], seconds: float) -> str:
    try:
        await handle.result(seconds)
    except JobRejected:
        return "rejected"
    except JobDead:
        return "dead"
    except (JobError, TimeoutError, LookupError) as error:
        return f"unknown ({type(error).__name__})"
    return "done"

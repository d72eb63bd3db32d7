"""One run: servers and workers under a mixed load, which a nemesis strikes."""

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import asyncpg  # type: ignore[import-untyped]
from redis.exceptions import RedisError

from tests.faults import observations, queue_state
from tests.faults.client import Client, JobRecord
from tests.faults.cluster import LEASE_SECONDS, Cluster
from tests.faults.load import HOT, Load
from tests.faults.processes import SABOTAGED
from tests.faults.sabotage import WITHOUT
from tests.waiting import PATIENCE_SECONDS

CHUNK = 20
MAX_WAITING = 150
"""Of the short form, whose nemeses need processor time to start workers. The long form keeps the workers busy."""
LONG_FACTOR = 4
"""The load of the long form, compared with the short form."""
POLL_SECONDS = 0.02


async def wait_until(holds: Callable[[], Awaitable[object]], *, seconds: float, goal: str) -> None:
    """Poll until a condition holds.

    Raises:
        TimeoutError: it did not hold in time; the message names the goal.
    """
    deadline = time.monotonic() + seconds
    while not await holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds:g} s: {goal}")
        await asyncio.sleep(POLL_SECONDS)


@dataclass
class Scenario:
    """The target of a nemesis.

    Args:
        cluster: the servers and workers.
        seed: for all randomness of the run.
        seconds: how long the nemesis strikes at least; 0: once, the short form.
    """

    cluster: Cluster
    seed: int
    seconds: float = 0
    settings: Mapping[str, str] = field(default_factory=dict)
    workers: int = 2
    mutation: str | None = None
    """The safeguard that the workers lack, so that an invariant must break."""
    faults: int = 0
    recovery_seconds: float = 0.0
    violations: list[tuple[str, str]] = field(default_factory=list)
    """Found by the nemesis: invariant and description."""
    notes: list[str] = field(default_factory=list)
    crowded_key: str | None = None
    """The ordering key of very many parked jobs, which do not count as load."""

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)  # noqa: S311  # repeatable, not secret
        # Separate, so that the nemesis draws the same numbers however fast the load is.
        self.load = Load(random.Random(-1 - self.seed))  # noqa: S311
        self.concurrency = int(self.settings.get("WORKER_CONCURRENCY", "16"))
        self.batch = int(self.settings.get("WORKER_BATCH_SIZE", "1"))
        self.client: Client

    @property
    def is_long(self) -> bool:
        return self.seconds > 0

    async def open(self) -> None:
        """Empty the servers, wait for the workers, and create some rows to change."""
        cluster = self.cluster
        for proxy in cluster.proxies:
            proxy.random = random.Random(self.seed)  # noqa: S311
        self._prepare_workers()
        await cluster.empty()
        for number in range(self.workers):
            if number not in cluster.workers.processes or not cluster.workers.is_alive(number):
                self.start_worker(number)
        await cluster.workers.wait_ready()
        await cluster.observe()
        self.client = Client(cluster.redis_url(cluster.client_proxy), cluster.redis_without_retry, f"s{self.seed}")
        users = await self.client.enqueue(self.load.first_users())
        self.load.users = [reply["id"] for reply in (await self.replies(users))[1:]]
        self.client.created_users.clear()  # one of them must not change
        posts = await self.client.enqueue([self.load.create_post() for _ in range(len(self.load.users))])
        self.load.posts = [reply["id"] for reply in await self.replies(posts)]

    async def close(self) -> None:
        await self.client.close()

    def _prepare_workers(self) -> None:
        """Keep the workers of the previous run if they are suitable: a start takes longer than many a fault."""
        environment = {
            "DATABASE_URL": self.cluster.database_url,
            "REDIS_URL": self.cluster.redis_url(self.cluster.redis_proxy),
            "WORKER_LEASE_SECONDS": str(LEASE_SECONDS),
            "WORKER_CONCURRENCY": str(self.concurrency),
            **self.settings,
        }
        workers = self.cluster.workers
        same = workers.environment == environment and sorted(workers.processes) == list(range(self.workers))
        if self.mutation or not same or not workers.are_reusable:
            workers.kill_all()
        workers.environment = environment

    def start_worker(self, number: int) -> None:
        """Start a worker, with the mutation if there is one."""
        if self.mutation is None:
            self.cluster.workers.start(number)
        else:
            self.cluster.workers.start(number, {WITHOUT: self.mutation}, command=SABOTAGED)

    async def replies(self, jobs: list[JobRecord]) -> list[Any]:
        """Wait for the outcomes of jobs that must be done; their replies."""

        async def have_outcomes() -> bool:
            await self.client.poll(jobs)
            return all(job.observed for job in jobs)

        await wait_until(have_outcomes, seconds=PATIENCE_SECONDS, goal="all of these jobs have their outcomes")
        outcomes = [json.loads(job.observed or "null") for job in jobs]
        for job, (done, _) in zip(jobs, outcomes, strict=True):
            assert done, str(job)
        return [reply for _, reply in outcomes]

    async def enqueue_load(self, jobs: int, strike: asyncio.Task[None]) -> None:
        """Enqueue at least this many jobs, and more until the strike ends, with a limit on queued jobs."""
        factor = LONG_FACTOR if self.is_long else 1
        chunk = CHUNK * factor * (1 if self.batch == 1 else 2)
        while not (enough := len(self.client.history) >= jobs) or not strike.done():
            if await self._count_waiting() < factor * MAX_WAITING:
                await self.client.enqueue(self.load.draw(chunk))
                self.load.replace_users(self.client.created_users)
                await asyncio.sleep(0 if self.is_long or not enough else 0.15)
            else:
                await asyncio.sleep(POLL_SECONDS)

    async def pause(self, shortest: float, longest: float) -> None:
        """Wait a random time before the next fault."""
        await asyncio.sleep(self.random.uniform(shortest, longest))

    async def wait_outage(self) -> None:
        """Wait as long as a server is down: a minute in the long form."""
        await self.pause(*((60, 61) if self.is_long else (2, 3)))

    @asynccontextmanager
    async def hold_rows(self, *, blocked: bool = True) -> AsyncIterator[None]:
        """Lock the rows that most jobs change; with `blocked`, wait until a job waits for one."""
        connection = await asyncpg.connect(self.cluster.postgres.url)
        try:
            async with connection.transaction():
                await connection.execute("SELECT 1 FROM users WHERE id = ANY($1) FOR UPDATE", self.load.users[:HOT])
                await connection.execute("SELECT 1 FROM posts WHERE id = ANY($1) FOR UPDATE", self.load.posts[:HOT])
                if blocked:
                    await self.wait_blocked()
                yield
        finally:
            await connection.close()

    async def wait_blocked(self) -> None:
        count_blocked = observations.count_blocked
        await wait_until(
            lambda: self.cluster.query(count_blocked), seconds=PATIENCE_SECONDS, goal="a job waits for a row"
        )

    async def wait_left_queue(self, job_ids: Sequence[bytes]) -> None:

        async def none_left() -> bool:
            return not any(await self.cluster.redis.execute_command("ZMSCORE", queue_state.QUEUE, *job_ids))

        await wait_until(none_left, seconds=PATIENCE_SECONDS, goal="none of these jobs is in the queue")

    async def restore_workers(self) -> None:
        """Start missing workers and kill extra ones."""
        workers = self.cluster.workers
        for number in [*workers.processes]:
            workers.resume(number)
            if number >= self.workers:
                workers.kill(number)
                del workers.processes[number]
        for number in range(self.workers):
            if not workers.is_alive(number):
                workers.start(number)
        await workers.wait_ready()

    async def still_queued(self, jobs: Sequence[JobRecord]) -> set[JobRecord]:
        members = {queue_state.text(member) for member in await self.cluster.redis.zrange(queue_state.QUEUE, 0, -1)}
        return {job for job in jobs if job.job_id in members}

    async def leased_jobs(self) -> set[str]:
        """The ids of the jobs that are under a lease."""
        keys = await self.cluster.redis.keys("arq:in-progress:*")
        return {queue_state.text(key).removeprefix("arq:in-progress:") for key in keys}

    async def _count_waiting(self) -> int:
        try:
            return await queue_state.count_jobs(self.client.redis, except_parked=self.crowded_key)
        except (RedisError, OSError):
            return 0  # Redis is down: the client is to notice that

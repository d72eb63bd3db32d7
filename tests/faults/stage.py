"""One run: a mixed load, a nemesis that strikes meanwhile, healing, quiet, and the verdict."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import asyncpg  # type: ignore[import-untyped]
from redis.exceptions import RedisError

from tests.faults import queue_state, seen
from tests.faults.client import Asked, Client
from tests.faults.house import LEASE_SECONDS, House
from tests.faults.load import HOT, Load
from tests.faults.processes import SABOTAGED
from tests.faults.sabotage import WITHOUT
from tests.faults.waiting import until
from tests.waiting import PATIENCE_SECONDS

CHUNK = 20
MOST_WAITING = 150
"""In the short form, which leaves time for what the nemesis has to start; the long form keeps the workers busy."""
LONG = 4
"""How many times as much in the long form."""


@dataclass
class Stage:
    """What a nemesis strikes.

    Args:
        house: the servers.
        seed: what all randomness of the run is drawn from.
        seconds: how long the nemesis strikes, at the least; 0: once, the short form.
    """

    house: House
    seed: int
    seconds: float = 0
    settings: Mapping[str, str] = field(default_factory=dict)
    workers: int = 2
    mutation: str | None = None
    """What is taken away from the workers, so that an invariant must break."""
    faults: int = 0
    recovery_seconds: float = 0.0
    complaints: list[tuple[str, str]] = field(default_factory=list)
    """What a nemesis has seen go wrong: invariant and what."""
    notes: list[str] = field(default_factory=list)
    """What else is worth saying of the run."""
    crowded_by: str | None = None
    """The key that a nemesis has put very many jobs behind each other for: those do not keep the load away."""

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)  # noqa: S311  # repeatable, not secret
        # Of its own, so that what a nemesis draws does not depend on how fast the load goes.
        self.load = Load(random.Random(-1 - self.seed))  # noqa: S311
        self.concurrency = int(self.settings.get("WORKER_CONCURRENCY", "16"))
        self.batch = int(self.settings.get("WORKER_BATCH_SIZE", "1"))
        self.client: Client

    @property
    def long(self) -> bool:
        """Whether this is the long form."""
        return self.seconds > 0

    async def begin(self) -> None:
        """Empty servers, workers that are ready, and some rows to change."""
        house = self.house
        for proxy in house.proxies:
            proxy.chance = random.Random(self.seed)  # noqa: S311
        environment = {
            "DATABASE_URL": house.database_url,
            "REDIS_URL": house.redis_url,
            "WORKER_LEASE_SECONDS": str(LEASE_SECONDS),
            "WORKER_CONCURRENCY": str(self.concurrency),
            **self.settings,
        }
        workers = house.workers
        numbers = list(range(self.workers))
        # A run leaves its workers to the next one: to start them takes longer than many a fault.
        if (
            workers.environment != environment
            or sorted(workers.processes) != numbers
            or not workers.usual
            or self.mutation
        ):
            workers.end_all()
        workers.environment = environment
        await house.empty()
        for number in numbers:
            if number not in workers.processes or not workers.alive(number):
                self.start(number)
        await workers.started()
        await house.note()
        self.client = Client(house.client_url, house.impatient, f"s{self.seed}")
        users = await self.client.enqueue(self.load.first())
        self.load.users = [reply["id"] for reply in (await self.replies(users))[1:]]
        self.client.made.clear()  # one of them must stay as it is
        posts = await self.client.enqueue([self.load.new_post() for _ in range(len(self.load.users))])
        self.load.posts = [reply["id"] for reply in await self.replies(posts)]

    def start(self, number: int) -> None:
        """Start a worker of this stage's kind."""
        if self.mutation is None:
            self.house.workers.start(number)
        else:
            self.house.workers.start(number, {WITHOUT: self.mutation}, command=SABOTAGED)

    async def replies(self, asked: list[Asked], *, seconds: float = PATIENCE_SECONDS) -> list[Any]:
        """Wait for the outcomes of jobs that must be done; what they were answered."""

        async def observed() -> bool:
            await self.client.look(asked)
            return all(one.observed for one in asked)

        await until(observed, seconds=seconds, what="all of these jobs have their outcomes")
        return [_reply(one) for one in asked]

    async def loaded(self, jobs: int, struck: asyncio.Task[None]) -> None:
        """Enqueue so many jobs, and more until the nemesis is done, without ever piling up too many."""
        size = LONG if self.long else 1
        chunk = CHUNK * size * (1 if self.batch == 1 else 2)
        while not (enough := len(self.client.history) >= jobs) or not struck.done():
            if await self._waiting() < size * MOST_WAITING:
                await self.client.enqueue(self.load.draw(chunk))
                self.load.meet(self.client.made)
                await asyncio.sleep(0 if self.long or not enough else 0.15)
            else:
                await asyncio.sleep(0.02)

    async def pause(self, shortest: float, longest: float) -> None:
        """Let the load run for a while before the next fault."""
        await asyncio.sleep(self.chance.uniform(shortest, longest))

    async def away(self) -> None:
        """How long a server is away: a minute in the long form."""
        await self.pause(*((60, 61) if self.long else (2, 3)))

    @asynccontextmanager
    async def rows_held(self, *, blocked: bool = True) -> AsyncIterator[None]:
        """The rows that most jobs are about are locked by another client meanwhile; `blocked`: once a job waits."""
        connection = await asyncpg.connect(self.house.postgres.url)
        try:
            async with connection.transaction():
                await connection.execute("SELECT 1 FROM users WHERE id = ANY($1) FOR UPDATE", self.load.users[:HOT])
                await connection.execute("SELECT 1 FROM posts WHERE id = ANY($1) FOR UPDATE", self.load.posts[:HOT])
                if blocked:
                    await self.until_blocked()
                yield
        finally:
            await connection.close()

    async def until_blocked(self, *, seconds: float = PATIENCE_SECONDS) -> None:
        """Wait until a job waits for a row."""
        await until(lambda: self.house.observe(seen.blocked), seconds=seconds, what="a job waits for a row")

    async def gone(self, job_ids: Sequence[bytes], *, seconds: float = PATIENCE_SECONDS) -> None:
        """Wait until none of these is in the queue."""

        async def none_left() -> bool:
            return not any(await self.house.redis.execute_command("ZMSCORE", queue_state.QUEUE, *job_ids))

        await until(none_left, seconds=seconds, what="none of these jobs is in the queue")

    async def restarted(self, number: int) -> None:
        """A worker that ended runs again."""
        self.house.workers.start(number)
        await self.house.workers.started(number)

    async def whole(self) -> None:
        """All workers are there, and no others."""
        workers = self.house.workers
        for number in [*workers.processes]:
            workers.thaw(number)
            if number >= self.workers:
                workers.kill(number)
                del workers.processes[number]
        for number in range(self.workers):
            if not workers.alive(number):
                workers.start(number)
        await workers.started()

    async def still_queued(self, asked: Sequence[Asked]) -> set[Asked]:
        """Which of these jobs are in the queue."""
        members = {queue_state.text(member) for member in await self.house.redis.zrange(queue_state.QUEUE, 0, -1)}
        return {one for one in asked if one.job_id in members}

    async def held_jobs(self) -> set[str]:
        """The jobs that some worker has under a lease."""
        keys = await self.house.redis.keys("arq:in-progress:*")
        return {queue_state.text(key).removeprefix("arq:in-progress:") for key in keys}

    async def end(self) -> None:
        """Leave the stage to the next run."""
        await self.client.close()

    async def _waiting(self) -> int:
        try:
            if self.crowded_by is not None:
                return await queue_state.waiting_beside(self.client.looks, self.crowded_by)
            return await queue_state.waiting(self.client.looks)
        except (RedisError, OSError):
            return 0  # Redis is away: the client finds out by itself


def _reply(asked: Asked) -> Any:
    done, reply = json.loads(asked.observed or "null")
    assert done, str(asked)
    return reply

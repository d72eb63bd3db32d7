"""How a queue stands, who works on it, and whether the two servers answer.

Nothing here takes longer for a longer queue than its logarithm. So the jobs in flight are not looked for: each worker's
sign of life, given every few seconds, says how many leases it holds, and they are the sum of those. The count is as old
as these signs, and what a killed worker held is told as due once its lease has ended.
"""

import asyncio
from collections.abc import Awaitable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError
from sqlalchemy.ext.asyncio import AsyncEngine

from producers import keys
from worker.database.connections import describe_error as describe_database_error
from worker.database.connections import ping
from worker.queue.availability import describe_error
from worker.queue.heartbeat import HEARTBEAT_SECONDS

TIMEOUT_SECONDS = 3.0
MISSING_SECONDS = 3 * HEARTBEAT_SECONDS
FORGOTTEN_SECONDS = 60 * 60


@dataclass(frozen=True, slots=True)
class Server:
    """What a server says of itself: its name and version, or why it cannot be used."""

    version: str | None = None
    trouble: str | None = None


@dataclass(frozen=True, slots=True)
class Jobs:
    """How many jobs of the queue are where."""

    due: int
    deferred: int
    """Their time has not come: of a first try or of the next."""
    in_flight: int
    """Claimed by workers that are alive."""
    parked: int
    """Waiting behind another job of their ordering keys."""
    dead: int
    """Dead letters."""
    oldest_due_seconds: float | None
    """For how long the first of the due jobs has been due; None when none is."""


class RunningJob(BaseModel):
    """A job that a worker runs, as its sign of life tells it; `id` is None when it has not the form of one."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    id: Annotated[str, Field(max_length=200)] | None = None
    job: Annotated[str, Field(max_length=200)] | None = None
    tries: int | None = Field(None, alias="try")
    seconds: float | None = None


class Beat(BaseModel):
    """A worker's sign of life. None of it is certain: anybody may write there."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    at: float | None = None
    running: int | None = None
    held: int | None = None
    concurrency: int | None = None
    redis_up: bool | None = None
    database_up: bool | None = None
    loop_lag_seconds: float | None = None
    """How late its event loop was at the worst, of late."""
    pool_in_use: int | None = None
    """Connections to the database that are in use, and"""
    pool_idle: int | None = None
    """those that wait for it."""
    jobs: Annotated[list[RunningJob], Field(max_length=100)] = []
    """Some of the jobs that it runs, those first that have run for longest."""


@dataclass(frozen=True, slots=True)
class WorkerSeen:
    """A worker of the queue, as it was last heard of."""

    name: bytes
    beat: Beat
    seen_seconds: float | None
    """How long ago; None when that cannot be read."""

    @property
    def missing(self) -> bool:
        """Whether it has not been heard of for three times as long as it should."""
        return self.seen_seconds is None or self.seen_seconds > MISSING_SECONDS


@dataclass(frozen=True, slots=True)
class Status:
    """All of it; `jobs` is None while Redis cannot be asked."""

    redis: Server
    database: Server
    jobs: Jobs | None
    workers: list[WorkerSeen]

    @property
    def reachable(self) -> bool:
        """Whether both servers answered."""
        return self.redis.trouble is None and self.database.trouble is None


async def status(redis: Redis, queue: str, engine: AsyncEngine) -> Status:
    """Ask both servers. Takes a few seconds at the most, and raises nothing for a server that is away."""
    database = asyncio.create_task(_database(engine))
    try:
        server, jobs, workers = await queue_status(redis, queue)
    except (RedisError, OSError) as error:
        return Status(Server(trouble=describe_error(error)), await database, None, [])
    return Status(server, await database, jobs, workers)


async def queue_status(redis: Redis, queue: str) -> tuple[Server, Jobs, list[WorkerSeen]]:
    """The half of it that Redis knows. Raises what the client raises."""
    seconds, microseconds = await redis.time()
    now_ms = seconds * 1000 + microseconds / 1000
    async with redis.pipeline(transaction=True) as pipeline:
        pipeline.info("server")
        pipeline.zcount(queue, "-inf", now_ms)
        pipeline.zcount(queue, f"({now_ms!r}", f"({keys.PARKED_MS}")
        pipeline.zcount(queue, keys.PARKED_MS, "+inf")
        pipeline.zcard(keys.dead(queue))
        pipeline.zrange(queue, 0, 0, withscores=True)
        pipeline.hgetall(keys.workers(queue))
        about, due, later, parked, dead, first, beats = await pipeline.execute()
    workers = sorted((_seen(name, beat, now_ms) for name, beat in beats.items()), key=lambda worker: worker.name)
    await _forget(redis, queue, workers)
    held = sum(worker.beat.held or 0 for worker in workers if not worker.missing)
    in_flight = max(0, min(held, later))
    # A score may be anything that somebody has written, below all times as well.
    oldest_ms = now_ms - max(0.0, first[0][1]) if due and first else None
    jobs = Jobs(due, later - in_flight, in_flight, parked, dead, None if oldest_ms is None else oldest_ms / 1000)
    return Server(version=_version(about)), jobs, [worker for worker in workers if not _forgotten(worker)]


async def _database(engine: AsyncEngine) -> Server:
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            version = await ping(engine)
    except Exception as error:  # noqa: BLE001  # whatever it is, it is the answer
        return Server(trouble=describe_database_error(error))
    return Server(version=f"PostgreSQL {version}")


def _version(about: Mapping[str, Any]) -> str:
    if about.get("server_name") == "valkey":
        return f"Valkey {about.get('valkey_version')}"
    return f"Redis {about.get('redis_version')}"


def _seen(name: bytes, said: bytes, now_ms: float) -> WorkerSeen:
    try:
        beat = Beat.model_validate_json(said)
    except ValidationError:
        beat = Beat()
    return WorkerSeen(name, beat, None if beat.at is None else max(0.0, now_ms / 1000 - beat.at))


def _forgotten(worker: WorkerSeen) -> bool:
    return worker.seen_seconds is not None and worker.seen_seconds > FORGOTTEN_SECONDS


async def _forget(redis: Redis, queue: str, workers: list[WorkerSeen]) -> None:
    """Remove those that have been missing for long: they were killed, and could not say good-bye."""
    if names := [worker.name for worker in workers if _forgotten(worker)]:
        with suppress(ResponseError):  # from a replica one can read only
            await cast("Awaitable[int]", redis.hdel(keys.workers(queue), *cast("list[str]", names)))

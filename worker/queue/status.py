"""The state of a queue and its workers, as far as Redis knows it.

Reading it takes time that grows with the logarithm of the queue's length only. So claimed jobs are not counted one by
one: each worker's heartbeat holds how many leases it has, and their sum is the count. It is as old as the heartbeats,
and the jobs of a killed worker count as due once their leases have ended.
"""

from collections.abc import Awaitable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from producers import keys
from worker.queue.heartbeat import HEARTBEAT_SECONDS

MISSING_SECONDS = 3 * HEARTBEAT_SECONDS
FORGOTTEN_SECONDS = 60 * 60


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """A server's name and version, or why it cannot be used."""

    version: str | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class JobCounts:
    """How many jobs of the queue are in each state: see `producers.JobStatus`."""

    due: int
    deferred: int
    claimed: int
    """By workers that are alive."""
    parked: int
    dead: int
    oldest_due_seconds: float | None
    """How long the first due job has been due; None when no job is."""


class RunningJob(BaseModel):
    """A running job, as a heartbeat reports it. `id` is None when it does not have the form of a job id."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    id: Annotated[str, Field(max_length=200)] | None = None
    job: Annotated[str, Field(max_length=200)] | None = None
    attempt: int | None = None
    seconds: float | None = None


class WorkerState(BaseModel):
    """What a heartbeat reports. None of it is certain: any client may write one."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    at: float | None = None
    running: int | None = None
    held: int | None = None
    concurrency: int | None = None
    redis_up: bool | None = None
    database_up: bool | None = None
    loop_lag_seconds: float | None = None
    """The worst recent lag of its event loop."""
    pool_in_use: int | None = None
    """Database connections in use."""
    pool_idle: int | None = None
    """Database connections that are idle."""
    jobs: Annotated[list[RunningJob], Field(max_length=100)] = []
    """Some of the jobs that it runs, longest-running first."""


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """A worker of the queue, as of its last heartbeat."""

    name: bytes
    state: WorkerState
    age_seconds: float | None
    """The age of the heartbeat; None when it cannot be read."""

    @property
    def missing(self) -> bool:
        """Whether its heartbeat is older than three intervals."""
        return self.age_seconds is None or self.age_seconds > MISSING_SECONDS


class QueueStatus(NamedTuple):
    """One observation of a queue."""

    redis: ServerStatus
    jobs: JobCounts
    workers: list[WorkerStatus]


async def read_queue_status(redis: Redis, queue: str) -> QueueStatus:
    """Observe a queue. Raises what the client raises."""
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
        info, due, later, parked, dead, first, heartbeats = await pipeline.execute()
    workers = sorted((_worker(name, data, now_ms) for name, data in heartbeats.items()), key=lambda worker: worker.name)
    await _remove_forgotten(redis, queue, workers)
    held = sum(worker.state.held or 0 for worker in workers if not worker.missing)
    claimed = max(0, min(held, later))
    # A client may write any score, negative ones included.
    oldest_ms = now_ms - max(0.0, first[0][1]) if due and first else None
    jobs = JobCounts(due, later - claimed, claimed, parked, dead, None if oldest_ms is None else oldest_ms / 1000)
    alive = [worker for worker in workers if not _is_forgotten(worker)]
    return QueueStatus(ServerStatus(version=_version(info)), jobs, alive)


def _version(info: Mapping[str, Any]) -> str:
    if info.get("server_name") == "valkey":
        return f"Valkey {info.get('valkey_version')}"
    return f"Redis {info.get('redis_version')}"


def _worker(name: bytes, heartbeat: bytes, now_ms: float) -> WorkerStatus:
    try:
        state = WorkerState.model_validate_json(heartbeat)
    except ValidationError:
        state = WorkerState()
    return WorkerStatus(name, state, None if state.at is None else max(0.0, now_ms / 1000 - state.at))


def _is_forgotten(worker: WorkerStatus) -> bool:
    return worker.age_seconds is not None and worker.age_seconds > FORGOTTEN_SECONDS


async def _remove_forgotten(redis: Redis, queue: str, workers: list[WorkerStatus]) -> None:
    """Remove the heartbeats of workers that were killed long ago and could not remove their own."""
    if names := [worker.name for worker in workers if _is_forgotten(worker)]:
        with suppress(ResponseError):  # a replica is read-only
            await cast("Awaitable[int]", redis.hdel(keys.workers(queue), *cast("list[str]", names)))

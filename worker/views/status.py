"""The state of a queue, its workers and both servers, for `worker status`, `worker top` and the dashboard."""

import asyncio
from dataclasses import dataclass

from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine

from worker.database import connections
from worker.queue.availability import REDIS_ERRORS, describe_error
from worker.queue.status import JobCounts, ServerStatus, WorkerStatus, read_queue_status

TIMEOUT_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Status:
    """One observation. `jobs` is None while Redis cannot be used."""

    redis: ServerStatus
    database: ServerStatus
    jobs: JobCounts | None
    workers: list[WorkerStatus]

    @property
    def reachable(self) -> bool:
        """Whether both servers answered."""
        return self.redis.error is None and self.database.error is None


async def read_status(redis: Redis, queue: str, engine: AsyncEngine) -> Status:
    """Observe both servers. Takes a few seconds at most, and does not raise when a server is down."""
    database = asyncio.create_task(_database(engine))
    try:
        server, jobs, workers = await read_queue_status(redis, queue)
    except REDIS_ERRORS as error:
        return Status(ServerStatus(error=describe_error(error)), await database, None, [])
    return Status(server, await database, jobs, workers)


async def _database(engine: AsyncEngine) -> ServerStatus:
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            version = await connections.ping(engine)
    except Exception as error:  # noqa: BLE001  # any failure is reported as the server's status
        return ServerStatus(error=connections.describe_error(error))
    return ServerStatus(version=f"PostgreSQL {version}")

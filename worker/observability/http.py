"""`/livez`, `/readyz` and `/metrics`, answered by the worker itself, on its own event loop.

Of several processes with one port the first answers, and another when that one is gone. What it tells of the queue and
of its workers is the same whoever answers.
"""

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog
import uvicorn
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder
from redis.asyncio import Redis
from redis.exceptions import RedisError
from sqlalchemy import text
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from producers._redis import connect
from worker.database.session import create_engine
from worker.engine.worker import EngineWorker
from worker.observability import health
from worker.observability.health import Health, Probe
from worker.observability.metrics import Families, Seen
from worker.queue import tallies
from worker.queue.availability import reason
from worker.queue.status import Beat, WorkerSeen, database_trouble, queue_status

log = structlog.get_logger("worker.http")

TAKEN_SECONDS = 2.0
ANSWER_SECONDS = 2.0
MOST_CONNECTIONS = 64
LONGEST_HEAD_BYTES = 16 * 1024


class Pages:
    """The three pages.

    Args:
        queue: the queue's name.
        redis: a client of its own, with short timeouts.
        asking: why the worker takes no jobs, if it does not.
        worker: the worker's own name, and what it is about now, as its sign of life tells it.
    """

    def __init__(self, queue: str, redis: Redis, asking: Health, worker: Callable[[], tuple[str, Beat]]) -> None:
        self._queue = queue
        self._redis = redis
        self._health = asking
        self._worker = worker

    def app(self) -> Starlette:
        """Them as an ASGI application."""
        pages = (("/livez", self.livez), ("/readyz", self.readyz), ("/metrics", self.metrics))
        return Starlette(routes=[Route(path, page, methods=["GET"]) for path, page in pages])

    async def livez(self, _request: Request) -> Response:
        """200 as long as the event loop turns."""
        return JSONResponse({"alive": True})

    async def readyz(self, _request: Request) -> Response:
        """200 when the worker takes jobs, 503 with the reasons when it does not."""
        trouble = await self._health.trouble()
        return JSONResponse({"ready": not trouble, "trouble": trouble}, status_code=503 if trouble else 200)

    async def metrics(self, request: Request) -> Response:
        """The metrics, in the form that the client prefers."""
        registry = CollectorRegistry()
        registry.register(Families(await self._seen()))
        ProcessCollector(registry=registry)
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(registry), media_type=content_type)

    async def _seen(self) -> Seen:
        name, beat = self._worker()
        own = WorkerSeen(name.encode(), beat, 0.0)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                counted = await tallies.read(self._redis, self._queue)
                _, jobs, workers = await queue_status(self._redis, self._queue)
        except (RedisError, OSError, TimeoutError):  # which `worker_server_up` says
            return Seen(self._queue, None, None, [own])
        return Seen(self._queue, jobs, counted, [own, *(worker for worker in workers if worker.name != own.name)])


async def answer(worker: EngineWorker, *, database_url: str, redis_url: str, host: str, port: int) -> None:
    """Answer for a worker until cancelled."""
    # Connections of their own: those of the jobs may all be in use, and wait for longer than a page may take.
    redis = connect(redis_url, queue=worker.queue_name, answer_timeout_seconds=health.ANSWER_SECONDS)
    engine = create_engine(database_url, pool_size=1, name="worker-health")

    async def ask_database() -> None:
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))

    asking = Health(
        worker.trouble, {"redis": Probe(redis.ping, reason), "database": Probe(ask_database, database_trouble)}
    )
    pages = Pages(worker.queue_name, redis, asking, lambda: (worker.name, Beat.model_validate(worker.state())))
    try:
        await serve(pages.app(), host, port)
    finally:
        await asking.end()
        await redis.aclose()
        await redis.connection_pool.disconnect()
        await engine.dispose()


async def serve(app: Starlette, host: str, port: int) -> None:
    """Answer until cancelled; as long as another process has the port, wait for it."""
    said = False
    while (listening := _listen(host, port)) is None:
        if not said:
            log.info("http_port_taken", host=host, port=port, because="another process answers there, or nobody may")
            said = True
        await asyncio.sleep(TAKEN_SECONDS)
    server = _Server(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            timeout_keep_alive=10,
            timeout_graceful_shutdown=1,
            limit_concurrency=MOST_CONNECTIONS,
            h11_max_incomplete_event_size=LONGEST_HEAD_BYTES,
            http="h11",
            ws="none",
        )
    )
    log.info("http_listening", host=host, port=listening.getsockname()[1])
    try:
        await server.serve(sockets=[listening])
    finally:
        server.should_exit = True
        await server.shutdown(sockets=[listening])


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: the worker's are in place."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _listen(host: str, port: int) -> socket.socket | None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=MOST_CONNECTIONS)
    except OSError:
        return None

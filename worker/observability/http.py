"""`/livez`, `/readyz` and `/metrics`, served by the worker itself on its own event loop.

Of several processes that share a port, one answers; another takes over when it ends. What the endpoints report about
the queue and its workers is the same from each of them.
"""

import asyncio
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import structlog
import uvicorn
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder
from redis.asyncio import Redis
from redis.exceptions import RedisError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from producers._redis import close_redis, connect
from worker.database.session import create_engine
from worker.engine.worker import EngineWorker
from worker.observability import health
from worker.observability.health import Probe
from worker.observability.metrics import MetricFamilies, MetricsSnapshot
from worker.queue.counters import read_counters
from worker.queue.status import WorkerState, WorkerStatus, read_queue_status

log = structlog.get_logger("worker.http")

PORT_RETRY_SECONDS = 2.0
METRICS_SECONDS = 2.0
MAX_CONNECTIONS = 64
MAX_HEAD_BYTES = 16 * 1024


class Endpoints:
    """The three endpoints of a worker.

    Args:
        worker: reports its own state.
        redis: a client for these endpoints only, with short timeouts.
        probes: the servers to check, keyed by `redis` and `database`.
    """

    def __init__(self, worker: EngineWorker, redis: Redis, probes: Mapping[str, Probe]) -> None:
        self._worker = worker
        self._redis = redis
        self._probes = probes

    def app(self) -> Starlette:
        """The endpoints as an ASGI application."""
        endpoints = (("/livez", self.livez), ("/readyz", self.readyz), ("/metrics", self.metrics))
        return Starlette(routes=[Route(path, endpoint, methods=["GET"]) for path, endpoint in endpoints])

    async def livez(self, _request: Request) -> Response:
        """200 while the event loop runs."""
        return JSONResponse({"alive": True})

    async def readyz(self, _request: Request) -> Response:
        """200 when the worker takes jobs, 503 with the reasons when it does not."""
        problems = await asyncio.gather(*(probe.problem() for probe in self._probes.values()))
        reasons = {name: problem for name, problem in zip(self._probes, problems, strict=True) if problem is not None}
        reasons |= self._worker.not_ready()
        return JSONResponse({"ready": not reasons, "reasons": reasons}, status_code=503 if reasons else 200)

    async def metrics(self, request: Request) -> Response:
        """The metrics, in the format that the client prefers."""
        registry = CollectorRegistry()
        registry.register(MetricFamilies(await self._snapshot()))
        ProcessCollector(registry=registry)
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(registry), media_type=content_type)

    async def _snapshot(self) -> MetricsSnapshot:
        queue, name = self._worker.queue_name, self._worker.name.encode()
        own = WorkerStatus(name, WorkerState.model_validate(self._worker.state()), 0.0)
        try:
            async with asyncio.timeout(METRICS_SECONDS):
                counters = await read_counters(self._redis, queue)
                _, jobs, workers = await read_queue_status(self._redis, queue)
        except (RedisError, OSError, TimeoutError):  # `worker_server_up` reports it
            return MetricsSnapshot(queue, None, None, [own])
        return MetricsSnapshot(queue, jobs, counters, [own, *(worker for worker in workers if worker.name != name)])


async def serve_endpoints(worker: EngineWorker, *, database_url: str, redis_url: str, host: str, port: int) -> None:
    """Serve the endpoints of a worker until cancelled."""
    # Own connections: those for jobs may all be in use, and may wait longer than a request to an endpoint can.
    redis = connect(redis_url, queue=worker.queue_name, answer_timeout_seconds=health.ANSWER_SECONDS)
    engine = create_engine(database_url, pool_size=1, name="worker-health")
    probes = {
        "redis": Probe(lambda: health.redis_problem(redis)),
        "database": Probe(lambda: health.database_problem(engine)),
    }
    try:
        await serve(Endpoints(worker, redis, probes).app(), host, port)
    finally:
        for probe in probes.values():
            await probe.close()
        await close_redis(redis)
        await engine.dispose()


async def serve(app: Starlette, host: str, port: int) -> None:
    """Serve an application until cancelled. While another process has the port, wait for it."""
    listening = await _listen(host, port)
    server = _Server(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            timeout_keep_alive=10,
            timeout_graceful_shutdown=1,
            limit_concurrency=MAX_CONNECTIONS,
            h11_max_incomplete_event_size=MAX_HEAD_BYTES,
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
    """uvicorn without its signal handlers: the worker has its own."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    logged = False
    while True:
        try:
            return socket.create_server((host, port), family=family, backlog=MAX_CONNECTIONS)
        except OSError as error:
            if not logged:
                log.info("http_port_taken", host=host, port=port, reason=error.strerror)
                logged = True
        await asyncio.sleep(PORT_RETRY_SECONDS)

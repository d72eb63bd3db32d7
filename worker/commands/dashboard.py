"""`worker dashboard`: connects the web page to its servers and serves it until a signal arrives."""

import asyncio
import os
import socket

import typer
from redis.asyncio import Redis

from producers._redis import close_redis, connect
from worker.commands.common import ANSWER_SECONDS, stop
from worker.dashboard.app import Dashboard
from worker.dashboard.context import Backend
from worker.dashboard.security import Access, InsecureAccess
from worker.dashboard.serve import Server
from worker.database.session import Timeouts, create_engine
from worker.observability import logs
from worker.settings import Settings

POOL_SIZE = 4
TIMEOUTS = Timeouts(connect_seconds=3, lock_seconds=2, statement_seconds=3, answer_seconds=5)


def serve(settings: Settings, host: str, port: int, *, allow_actions: bool) -> None:
    """Serve the page. Exits with 2 and a reason when the address cannot be used."""
    token = settings.dashboard_token
    access = Access(host, port, token.get_secret_value() if token else None, allow_actions)
    try:
        access.check()
        redis = connect(
            settings.redis_url.get_secret_value(), queue=settings.queue, answer_timeout_seconds=ANSWER_SECONDS
        )
        listening = _listen(host, port)
    except (InsecureAccess, ValueError) as error:
        stop(str(error))
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else type(error).__name__
        stop(f"cannot listen on {host}:{port} ({why}): choose another --port or --host")
    logs.configure(settings.log_format, settings.log_level)
    typer.echo(f"http://{_url_host(host)}:{port}/  (Ctrl-C exits)", err=True)
    asyncio.run(_serve(settings, access, redis, listening))


async def _serve(settings: Settings, access: Access, redis: Redis, listening: socket.socket) -> None:
    engine = create_engine(
        settings.database_url.get_secret_value(), pool_size=POOL_SIZE, timeouts=TIMEOUTS, name="worker-dashboard"
    )
    dashboard = Dashboard(Backend(redis, engine, settings), access)
    try:
        await Server(dashboard).serve(sockets=[listening])
    finally:
        dashboard.poller.close()
        await dashboard.poller.wait_closed()
        await close_redis(redis)
        await engine.dispose()


def _listen(host: str, port: int) -> socket.socket:
    family, _, _, _, address = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
    return socket.create_server(address[:2], family=family)


def _url_host(host: str) -> str:
    return f"[{host}]" if ":" in host and not host.startswith("[") else host

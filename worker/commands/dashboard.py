"""`worker dashboard`: the web page for operations."""

import asyncio
import os
from typing import Annotated

import typer
from rich.console import Console

from producers.connection import connect
from worker.app import schedule
from worker.commands.common import settings_from, stop
from worker.dashboard.app import Dashboard
from worker.dashboard.desk import Backend
from worker.dashboard.security import Access, Refused
from worker.dashboard.serve import Server
from worker.database.engine import create_engine
from worker.ops import logs
from worker.settings import Settings, zone

POOL_SIZE = 4
ANSWER_SECONDS = 3.0

Host = Annotated[str, typer.Option(help="Where to listen. Anything but loopback needs `WORKER_DASHBOARD_TOKEN`.")]
Port = Annotated[int, typer.Option(min=1, max=65535, help="The port.")]
AllowActions = Annotated[
    bool, typer.Option("--allow-actions", help="Let dead letters be replayed and purged; by default one can only look.")
]


def run(host: str, port: int, *, allow_actions: bool) -> None:
    """Serve the page until it is told to stop."""
    settings = settings_from()
    token = settings.dashboard_token.get_secret_value() if settings.dashboard_token else None
    access = Access(host, port, token, allow_actions)
    try:
        access.check()
    except Refused as error:
        stop(str(error))
    logs.configure(settings.log_format, settings.log_level)
    try:
        asyncio.run(_serve(settings, access))
    except OSError as error:
        stop(f"{access.host}:{access.port} cannot be listened on ({os.strerror(error.errno or 0)}): choose another --port")

"""Serves the dashboard on a port of this machine, for a browser."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.integration.dashboard.staging import DEFAULT_ACCESS, opened
from tests.waiting import PATIENCE_SECONDS
from worker.dashboard.security import Access
from worker.dashboard.serve import Server
from worker.settings import Settings


@asynccontextmanager
async def served(
    settings: Settings, access: Access = DEFAULT_ACCESS, *, port: int = 0, interval_seconds: float = 0.2
) -> AsyncIterator[str]:
    """The address of the page, which is served for as long as the block lasts."""
    listening = socket.create_server((access.host, port))
    port = listening.getsockname()[1]
    access = Access(access.host, port, access.token, access.allow_actions)
    async with opened(settings, access, interval_seconds=interval_seconds) as page:
        server = Server(page.dashboard)
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            page.dashboard.poller.close()
            server.should_exit = True
            async with asyncio.timeout(PATIENCE_SECONDS):
                await serving

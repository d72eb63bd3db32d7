"""Serving the page until it is told to stop."""

import asyncio
from types import FrameType

import uvicorn

from worker.dashboard.app import Dashboard
from worker.dashboard.security import Access

STOP_SECONDS = 3


class Server(uvicorn.Server):
    """uvicorn, but streams end when it is told to stop: it would wait for those who watch."""

    def __init__(self, dashboard: Dashboard, access: Access) -> None:
        super().__init__(
            uvicorn.Config(
                dashboard,
                host=access.host.strip("[]"),
                port=access.port,
                log_config=None,
                access_log=False,
                lifespan="off",
                # Nobody's word is taken for where a request comes from.
                proxy_headers=False,
                server_header=False,
                h11_max_incomplete_event_size=16 * 1024,
                limit_concurrency=500,
                timeout_graceful_shutdown=STOP_SECONDS,
            )
        )
        self._dashboard = dashboard

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Take the signal: nobody watches any more."""
        asyncio.get_running_loop().call_soon_threadsafe(self._dashboard.poller.close)
        super().handle_exit(sig, frame)

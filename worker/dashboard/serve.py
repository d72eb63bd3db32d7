"""Serving the page until it is told to stop."""

import asyncio
from types import FrameType

import uvicorn

from worker.dashboard.app import Dashboard

STOP_SECONDS = 3
MOST_CONNECTIONS = 500
LONGEST_HEAD_BYTES = 16 * 1024


class Server(uvicorn.Server):
    """uvicorn, but streams end when it is told to stop: it would wait for those who watch."""

    def __init__(self, dashboard: Dashboard) -> None:
        super().__init__(
            uvicorn.Config(
                dashboard,
                log_config=None,
                access_log=False,
                lifespan="off",
                # Nobody's word is taken for where a request comes from.
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=10,
                timeout_graceful_shutdown=STOP_SECONDS,
                limit_concurrency=MOST_CONNECTIONS,
                h11_max_incomplete_event_size=LONGEST_HEAD_BYTES,
                http="h11",
                ws="none",
            )
        )
        self._dashboard = dashboard

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Take the signal: nobody watches any more."""
        asyncio.get_running_loop().call_soon_threadsafe(self._dashboard.poller.close)
        super().handle_exit(sig, frame)

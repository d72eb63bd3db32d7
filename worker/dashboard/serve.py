"""Serving the dashboard with uvicorn until a signal arrives."""

import asyncio
from types import FrameType

import uvicorn

from worker.dashboard.app import Dashboard

STOP_SECONDS = 3
MAX_CONNECTIONS = 500
MAX_HEAD_BYTES = 16 * 1024


class Server(uvicorn.Server):
    """uvicorn, except that a signal also ends the event streams, which it would wait for."""

    def __init__(self, dashboard: Dashboard) -> None:
        super().__init__(
            uvicorn.Config(
                dashboard,
                log_config=None,
                access_log=False,
                lifespan="off",
                # No header is trusted for the address of a client.
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=10,
                timeout_graceful_shutdown=STOP_SECONDS,
                limit_concurrency=MAX_CONNECTIONS,
                h11_max_incomplete_event_size=MAX_HEAD_BYTES,
                http="h11",
                ws="none",
            )
        )
        self._dashboard = dashboard

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Close the poller, then let uvicorn handle the signal."""
        asyncio.get_running_loop().call_soon_threadsafe(self._dashboard.poller.close)
        super().handle_exit(sig, frame)

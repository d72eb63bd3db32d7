"""The dashboard in the test's own process, reached without a network."""

import asyncio
import base64
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
from arq.connections import ArqRedis

from producers._redis import connect
from worker.dashboard.app import Dashboard
from worker.dashboard.context import Backend
from worker.dashboard.security import Access
from worker.database.session import create_engine
from worker.settings import Settings

ADDRESS = "http://127.0.0.1:8090"
DEFAULT_ACCESS = Access()


def csrf_of(client: httpx.AsyncClient) -> str:
    """The CSRF token in the session cookie of a browser."""
    (cookie,) = client.cookies.values()
    return str(json.loads(base64.b64decode(cookie.partition(".")[0]))["csrf"])


@dataclass
class Page:
    """One browser, the dashboard it shows, and the dashboard's Redis."""

    dashboard: Dashboard
    redis: ArqRedis
    client: httpx.AsyncClient

    async def get(self, path: str, *, status: int = 200, **params: Any) -> str:
        """The text of a page."""
        answer = await self.client.get(path, params=params or None)
        assert answer.status_code == status, answer.text
        return answer.text

    async def post(self, path: str, *, csrf: bool = True, **fields: Any) -> httpx.Response:
        """Post a form, by default with the CSRF token that the page puts into it."""
        if "csrf" not in fields and csrf:
            await self.client.get("/jobs", follow_redirects=True)  # a page or the login: both start a session
            fields = {"csrf": csrf_of(self.client)} | fields
        return await self.client.post(path, data=fields)


@asynccontextmanager
async def opened(
    settings: Settings, access: Access = DEFAULT_ACCESS, *, address: str = ADDRESS, interval_seconds: float = 1.0
) -> AsyncIterator[Page]:
    """The dashboard of these servers, and a browser."""
    redis = connect(settings.redis_url.get_secret_value(), queue=settings.queue, answer_timeout_seconds=1)
    engine = create_engine(settings.database_url.get_secret_value(), pool_size=4)
    dashboard = Dashboard(Backend(redis, engine, settings), access, interval_seconds)
    try:
        async with browser(dashboard, address) as client:
            yield Page(dashboard, redis, client)
    finally:
        dashboard.poller.close()
        await dashboard.poller.wait_closed()
        await redis.aclose()
        await redis.connection_pool.disconnect()
        await engine.dispose()


def browser(dashboard: Dashboard, address: str = ADDRESS) -> httpx.AsyncClient:
    """A browser without cookies."""
    transport = httpx.ASGITransport(dashboard, client=("127.0.0.1", 50_000))
    return httpx.AsyncClient(transport=transport, base_url=address)


@dataclass
class Viewer:
    """A client that reads the stream of the overview."""

    status: int = 0
    text: str = ""
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    stuck: bool = False
    """Whether it has stopped reading."""
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _left: asyncio.Event = field(default_factory=asyncio.Event)

    async def until(self, pattern: str, *, seconds: float = 10) -> str:
        """Wait until the stream contains this; the whole stream so far."""
        async with asyncio.timeout(seconds):
            while not re.search(pattern, self.text, re.DOTALL):
                self._changed.clear()
                await self._changed.wait()
        return self.text

    async def receive(self) -> dict[str, Any]:
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        if self.stuck:
            await self._left.wait()
        self.status = message.get("status", self.status)
        self.text += message.get("body", b"").decode()
        if message["type"] == "http.response.body" and not message.get("more_body"):
            self.ended.set()
        self._changed.set()

    def leave(self) -> None:
        """Disconnect."""
        self._left.set()


@asynccontextmanager
async def watching(dashboard: Dashboard) -> AsyncIterator[Viewer]:
    """A viewer, for as long as the block lasts."""
    viewer = Viewer()
    scope = {
        "type": "http", "method": "GET", "path": "/events", "raw_path": b"/events", "root_path": "", "scheme": "http",
        "query_string": b"", "headers": [(b"host", b"localhost")],
        "client": ("127.0.0.1", 1), "server": ("localhost", 80),
    }  # fmt: skip
    answering = asyncio.create_task(dashboard(scope, viewer.receive, viewer.send))
    try:
        yield viewer
    finally:
        viewer.leave()
        async with asyncio.timeout(10):
            await answering

"""The page for operations as the tests ask it: in the test's own process, over no network."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
from arq.connections import ArqRedis

from producers._redis import connect
from tests.waiting import PATIENCE_SECONDS
from worker.app import schedule
from worker.dashboard.app import Dashboard
from worker.dashboard.context import Backend
from worker.dashboard.security import Access
from worker.database.session import create_engine
from worker.settings import Settings, zone

ADDRESS = "http://127.0.0.1:8090"
BY_DEFAULT = Access()


@dataclass
class Page:
    """One browser before the page, and the page's Redis."""

    dashboard: Dashboard
    redis: ArqRedis
    client: httpx.AsyncClient

    async def get(self, path: str, *, status: int = 200, **asked: Any) -> str:
        """What a page says."""
        answer = await self.client.get(path, params=asked or None)
        assert answer.status_code == status, answer.text
        return answer.text

    async def post(self, path: str, *, csrf: bool = True, **fields: Any) -> httpx.Response:
        """Post a form, by default with the token that the page would have put into it."""
        if not self.client.cookies:
            await self.client.get("/login")
        sessions = self.dashboard.desk.sessions
        session, _ = sessions.of(self.client.cookies.get(sessions.cookie))
        own = {"csrf": sessions.csrf(session)} if csrf else {}
        return await self.client.post(path, data={**own, **fields})


@asynccontextmanager
async def opened(
    settings: Settings, access: Access = BY_DEFAULT, *, address: str = ADDRESS, every_seconds: float = 1.0
) -> AsyncIterator[Page]:
    """The page for these servers, and a browser before it."""
    redis = connect(settings.redis_url.get_secret_value(), queue=settings.queue, answer_timeout_seconds=1)
    engine = create_engine(settings.database_url.get_secret_value(), pool_size=4)
    backend = Backend(
        redis, engine, settings.queue, zone(settings.timezone), schedule(redis, settings), settings.max_payload_bytes
    )
    dashboard = Dashboard(backend, access, every_seconds)
    transport = httpx.ASGITransport(dashboard, client=("127.0.0.1", 50_000))
    try:
        async with httpx.AsyncClient(transport=transport, base_url=address) as client:
            yield Page(dashboard, redis, client)
    finally:
        dashboard.poller.close()
        await dashboard.poller.ended()
        await redis.aclose()
        await redis.connection_pool.disconnect()
        await engine.dispose()


@dataclass
class Viewer:
    """Somebody who watches the stream of the overview."""

    status: int = 0
    text: str = ""
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _gone: asyncio.Event = field(default_factory=asyncio.Event)

    async def until(self, pattern: str, *, seconds: float = PATIENCE_SECONDS) -> str:
        """Wait until the stream has said something; all that it has said."""
        async with asyncio.timeout(seconds):
            while not re.search(pattern, self.text, re.DOTALL):
                self._news.clear()
                await self._news.wait()
        return self.text

    async def receive(self) -> dict[str, Any]:
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.status = message.get("status", self.status)
        self.text += message.get("body", b"").decode()
        if message["type"] == "http.response.body" and not message.get("more_body"):
            self.ended.set()
        self._news.set()

    def leave(self) -> None:
        """Close the browser's window."""
        self._gone.set()


@asynccontextmanager
async def watching(dashboard: Dashboard, *cookies: str) -> AsyncIterator[Viewer]:
    """A viewer, for as long as the block lasts."""
    viewer = Viewer()
    headers = [(b"host", b"localhost"), *((b"cookie", cookie.encode()) for cookie in cookies)]
    scope = {
        "type": "http", "method": "GET", "path": "/events", "raw_path": b"/events", "root_path": "", "scheme": "http",
        "query_string": b"", "headers": headers, "client": ("127.0.0.1", 1), "server": ("localhost", 80),
    }  # fmt: skip
    answering = asyncio.create_task(dashboard(scope, viewer.receive, viewer.send))
    try:
        yield viewer
    finally:
        viewer.leave()
        async with asyncio.timeout(PATIENCE_SECONDS):
            await answering

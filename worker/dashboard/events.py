"""Server-sent events: each viewer is sent the parts of the page that have changed."""

import asyncio
from collections.abc import AsyncIterator, Mapping

from starlette.types import Receive, Scope, Send

from worker.dashboard.poller import Poller, TooManyViewers

RETRY_MS = 2000
SEND_SECONDS = 10.0
"""Whoever takes nothing for so long is gone, whatever its connection says."""

Parts = Mapping[str, str]
"""The names of parts of the page and their HTML."""


class EventStream:
    """An answer that goes on until the viewer is gone, or the page ends."""

    def __init__(self, poller: Poller[Parts]) -> None:
        self._poller = poller

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send parts as they change."""
        if scope["method"] == "HEAD":
            await _start(send, 200, b"text/event-stream; charset=utf-8")
            await send({"type": "http.response.body", "body": b""})
            return
        try:
            with self._poller.watching() as views:
                await _start(send, 200, b"text/event-stream; charset=utf-8")
                await _send(send, f"retry: {RETRY_MS}\n\n".encode())
                sending = asyncio.create_task(_send_views(views, send))
                gone = asyncio.create_task(_gone(receive))
                try:
                    await asyncio.wait({sending, gone}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for task in (sending, gone):
                        task.cancel()
                    await asyncio.gather(sending, gone, return_exceptions=True)
                await send({"type": "http.response.body", "body": b""})
        except TooManyViewers:
            await _start(send, 503, b"text/plain; charset=utf-8")
            await send({"type": "http.response.body", "body": b"too many are watching: close some\n"})


def event(name: str, html: str) -> bytes:
    r"""One event in the form of the stream.

    >>> event("counts", "<p>\n1</p>")
    b'event: counts\ndata: <p>\ndata: 1</p>\n\n'
    """
    lines = "".join(f"data: {line}\n" for line in html.splitlines() or [""])
    return f"event: {name}\n{lines}\n".encode()


async def _send_views(views: AsyncIterator[Parts], send: Send) -> None:
    sent: dict[str, str] = {}
    async for parts in views:
        news = {name: html for name, html in parts.items() if sent.get(name) != html}
        sent |= news
        await _send(send, b"".join(event(name, html) for name, html in news.items()) or b": nothing new\n\n")


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _start(send: Send, status: int, kind: bytes) -> None:
    headers = [(b"content-type", kind), (b"x-accel-buffering", b"no")]
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def _send(send: Send, data: bytes) -> None:
    async with asyncio.timeout(SEND_SECONDS):
        await send({"type": "http.response.body", "body": data, "more_body": True})

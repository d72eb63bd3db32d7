"""The overview: one snapshot in the page, and a stream of the parts that change (server-sent events)."""

import logging
from collections.abc import AsyncIterator

from sse_starlette import EventSourceResponse, ServerSentEvent
from sse_starlette.sse import AppStatus, SendTimeoutError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from worker.dashboard.context import Parts, context_of
from worker.dashboard.overview import PARTS
from worker.dashboard.poller import SharedPoller, TooManyViewers

FIRST_SNAPSHOT_SECONDS = 5.0
RETRY_MS = 2000
SEND_SECONDS = 10.0
"""A viewer that accepts nothing for this long is dropped."""

# Closing the poller ends the streams, and completes them. sse-starlette would cut them off as soon as the server stops.
AppStatus.enable_automatic_graceful_drain = False
# It logs every chunk that it sends.
logging.getLogger("sse_starlette").setLevel(logging.INFO)


async def show_overview(request: Request) -> Response:
    """The page with one snapshot. Without JavaScript, reloading it shows the next one."""
    context = context_of(request)
    try:
        parts = await context.poller.first(FIRST_SNAPSHOT_SECONDS)
    except TooManyViewers:
        raise HTTPException(503, "Too many viewers. Close some of the pages.") from None
    return context.templates.page(request, "overview.html", parts=parts or dict.fromkeys(PARTS, ""))


async def stream_events(request: Request) -> "EventStream":
    """The stream of changes."""
    return EventStream(context_of(request).poller)


class EventStream:
    """A response that lasts until the viewer leaves or the poller is closed."""

    def __init__(self, poller: SharedPoller[Parts]) -> None:
        self._poller = poller

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send parts as they change."""
        try:
            with self._poller.subscribe() as values:
                stream = EventSourceResponse(_events(values), sep="\n", send_timeout=SEND_SECONDS)
                await stream(scope, receive, send)
        except TooManyViewers:
            await PlainTextResponse("too many viewers: close some\n", 503)(scope, receive, send)
        except SendTimeoutError:
            pass  # the server closes the connection, because the response is not complete


async def _events(values: AsyncIterator[Parts]) -> AsyncIterator[ServerSentEvent]:
    yield ServerSentEvent(retry=RETRY_MS, sep="\n")
    sent: dict[str, str] = {}
    async for parts in values:
        for name, html in parts.items():
            if sent.get(name) != html:
                sent[name] = html
                yield ServerSentEvent(html, event=name, sep="\n")

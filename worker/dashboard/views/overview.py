"""The first page: how the queue stands, live."""

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from worker.dashboard.context import desk_of
from worker.dashboard.events import EventStream
from worker.dashboard.overview import PARTS
from worker.dashboard.poller import TooManyViewers

FIRST_LOOK_SECONDS = 5.0


async def overview(request: Request) -> Response:
    """The page with one look in it; what comes then comes as events, or, without JavaScript, by loading it again."""
    desk = desk_of(request)
    try:
        parts = await desk.poller.first(FIRST_LOOK_SECONDS)
    except TooManyViewers:
        raise HTTPException(503, "Too many are watching: close some of the pages.") from None
    return desk.pages.answer(request, "overview.html", parts=parts or dict.fromkeys(PARTS, ""))


async def events(request: Request) -> EventStream:
    """The stream of what changes."""
    return EventStream(desk_of(request).poller)

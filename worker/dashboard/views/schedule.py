"""Scheduled jobs: when each ran last, and when it runs next."""

from starlette.requests import Request
from starlette.responses import Response

from worker.dashboard.context import desk_of
from worker.dashboard.ticks import ticks


async def schedule(request: Request) -> Response:
    """The page of the clock."""
    desk = desk_of(request)
    async with desk.ledger() as session:
        found = await ticks(session, desk.backend.schedule, desk.backend.zone)
    return desk.pages.answer(request, "schedule.html", ticks=found)

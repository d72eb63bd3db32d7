"""Logging in with the token, and out again."""

import structlog
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from worker.dashboard.context import desk_of
from worker.dashboard.forms import read_form, session_of

log = structlog.get_logger("worker.dashboard")


async def login(request: Request) -> Response:
    """The form."""
    if session_of(request).known:
        return RedirectResponse("/", 303)
    return desk_of(request).pages.answer(request, "login.html", wrong=False)


async def enter(request: Request) -> Response:
    """Take the token, and give the browser a session that may see the pages."""
    desk = desk_of(request)
    form = await read_form(request, desk.sessions)
    remote = "" if request.client is None else request.client.host
    if desk.wrong_tries.too_many(remote):
        raise HTTPException(429, "Too many wrong tokens: wait a minute.", headers={"retry-after": "60"})
    if not desk.sessions.opens(form.get("token", [""])[-1]):
        desk.wrong_tries.note(remote)
        log.warning("dashboard_login_refused", remote=remote)
        return desk.pages.answer(request, "login.html", status=403, wrong=True)
    return _with_session(request, RedirectResponse("/", 303), known=True)


async def leave(request: Request) -> Response:
    """Take the session away."""
    await read_form(request, desk_of(request).sessions)
    return _with_session(request, RedirectResponse("/login", 303), known=False)


def _with_session(request: Request, response: Response, *, known: bool) -> Response:
    sessions = desk_of(request).sessions
    session = sessions.new(known=known or not sessions.needs_login)
    response.headers.append("set-cookie", sessions.header(session, secure=request.url.scheme == "https"))
    return response

"""Logging in with the token, and out."""

import structlog
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from worker.dashboard.context import context_of
from worker.dashboard.params import read_form
from worker.dashboard.sessions import is_logged_in, is_token, start_session

log = structlog.get_logger("worker.dashboard")


async def show_login(request: Request) -> Response:
    """The form."""
    context = context_of(request)
    if is_logged_in(request, context.access):
        return RedirectResponse("/", 303)
    return context.templates.page(request, "login.html", failed=False)


async def log_in(request: Request) -> Response:
    """Check the token and start a session."""
    context = context_of(request)
    form = await read_form(request)
    remote = "" if request.client is None else request.client.host
    if context.failed_logins.is_blocked(remote):
        raise HTTPException(429, "Too many failed logins. Wait a minute.", headers={"retry-after": "60"})
    if not is_token(context.access, form.get("token", [""])[-1]):
        context.failed_logins.add(remote)
        log.warning("dashboard_login_refused", remote=remote)
        return context.templates.page(request, "login.html", status=403, failed=True)
    start_session(request)
    return RedirectResponse("/", 303)


async def log_out(request: Request) -> Response:
    """End the session."""
    await read_form(request)
    request.session.clear()
    return RedirectResponse("/login", 303)

"""The application: routes, and the answers to errors."""

from collections.abc import Awaitable, Callable
from http import HTTPStatus

import structlog
from redis.exceptions import RedisError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from worker.dashboard.context import Backend, DashboardContext, context_of
from worker.dashboard.overview import Overview
from worker.dashboard.poller import POLL_SECONDS, SharedPoller
from worker.dashboard.security import Access, middleware
from worker.dashboard.sessions import FailedLogins, is_logged_in
from worker.dashboard.templating import FOLDER, Templates
from worker.dashboard.views import dead, jobs, login, overview, schedule
from worker.database.connections import DATABASE_ERRORS
from worker.database.connections import describe_error as describe_database_error
from worker.model.failures import causes
from worker.queue.availability import describe_error

View = Callable[[Request], Awaitable[ASGIApp]]

log = structlog.get_logger("worker.dashboard")


class Dashboard:
    """The ASGI application.

    Args:
        backend: the servers and the queue.
        access: where it listens and what it allows.
        interval_seconds: how often it polls while there are viewers.
    """

    def __init__(self, backend: Backend, access: Access, interval_seconds: float = POLL_SECONDS) -> None:
        templates = Templates(backend.queue, backend.zone, access)
        self.poller = SharedPoller(Overview(backend, templates).render, interval_seconds)
        self._app = Starlette(
            routes=_routes(), middleware=middleware(access), exception_handlers={HTTPException: _http_error}
        )
        self._app.state.context = DashboardContext(backend, access, FailedLogins(), templates, self.poller)
        self.routes = self._app.routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        await self._app(scope, receive, send)


def _routes() -> list[Route | Mount]:
    return [
        Mount("/static", StaticFiles(directory=FOLDER / "static")),
        _route("/login", login.show_login, public=True),
        _route("/login", login.log_in, "POST", public=True),
        _route("/logout", login.log_out, "POST", public=True),
        _route("/", overview.show_overview),
        _route("/events", overview.stream_events),
        _route("/jobs", jobs.show_search),
        _route("/job", jobs.show_job),
        _route("/key", jobs.show_key),
        _route("/dead", dead.show_dead_letters),
        _route("/dead/confirm", dead.confirm, "POST"),
        _route("/dead/act", dead.act, "POST"),
        _route("/schedule", schedule.show_schedule),
    ]


def _route(path: str, view: View, method: str = "GET", *, public: bool = False) -> Route:
    """A page, for logged-in users unless it is public. While a server is unreachable, it reloads itself."""

    async def endpoint(request: Request) -> ASGIApp:
        if not public and not is_logged_in(request, context_of(request).access):
            if method == "GET" and path != "/events":
                return RedirectResponse("/login", 303)
            raise HTTPException(401, "Log in first.")
        try:
            return await view(request)
        except HTTPException:
            raise
        except RedisError as error:
            return _server_unreachable(request, "Redis", describe_error(error))
        except DATABASE_ERRORS as error:
            return _server_unreachable(request, "PostgreSQL", describe_database_error(error))
        except Exception as error:  # noqa: BLE001  # logged with its types and places
            log.error("dashboard_failed", path=path, error=causes(error))  # noqa: TRY400  # without its text
            return _error_page(request, 500, "This page failed because of a bug. See the dashboard's log.")

    return Route(path, endpoint, methods=[method])


def _server_unreachable(request: Request, server: str, why: str) -> Response:
    # A POST may have had its effect, so it is not repeated.
    reload_seconds = 3 if request.method == "GET" else None
    return _error_page(request, 503, f"{server} cannot be used: {why}.", reload_seconds)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101  # registered for these alone
    answer = _error_page(request, error.status_code, error.detail)
    answer.headers.update(error.headers or {})
    return answer


def _error_page(request: Request, status: int, text: str, reload_seconds: int | None = None) -> Response:
    title = HTTPStatus(status).phrase
    return context_of(request).templates.page(
        request, "error.html", status=status, code=status, title=title, text=text, reload_seconds=reload_seconds
    )

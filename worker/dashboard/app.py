"""The application: which address leads to which page, and what stands before all of them."""

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

from worker.dashboard.context import Backend, Desk, desk_of
from worker.dashboard.forms import session_of
from worker.dashboard.overview import Overview
from worker.dashboard.poller import EVERY_SECONDS, Poller
from worker.dashboard.security import Access, Guard
from worker.dashboard.sessions import Sessions, WrongTries
from worker.dashboard.templating import FOLDER, Pages
from worker.dashboard.views import dead, jobs, login, overview, schedule
from worker.database.connections import DATABASE_ERRORS
from worker.database.connections import describe_error as describe_database_error
from worker.database.session import create_sessions
from worker.model.failures import causes
from worker.queue.availability import describe_error

View = Callable[[Request], Awaitable[ASGIApp]]

log = structlog.get_logger("worker.dashboard")


class Dashboard:
    """The ASGI application, and what whoever serves it needs of it.

    Args:
        backend: what it looks at.
        access: who may see it, and do what.
        every_seconds: how often it looks while somebody watches.
    """

    def __init__(self, backend: Backend, access: Access, every_seconds: float = EVERY_SECONDS) -> None:
        sessions = Sessions(access.token, access.port)
        pages = Pages(backend.queue, backend.zone, access, sessions)
        self.poller = Poller(Overview(backend, pages).look, every_seconds)
        app = Starlette(routes=_routes(), exception_handlers={HTTPException: _refused})
        ledger = create_sessions(backend.engine)
        self.desk = Desk(backend, access, sessions, WrongTries(), pages, self.poller, ledger)
        app.state.desk = self.desk
        self.routes = app.routes
        self._app = Guard(app, access, sessions)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        await self._app(scope, receive, send)


def _routes() -> list[Route | Mount]:
    return [
        Mount("/static", StaticFiles(directory=FOLDER / "static")),
        _page("/login", login.login, for_all=True),
        _page("/login", login.enter, "POST", for_all=True),
        _page("/logout", login.leave, "POST", for_all=True),
        _page("/", overview.overview),
        _page("/events", overview.events),
        _page("/jobs", jobs.jobs),
        _page("/job", jobs.job),
        _page("/key", jobs.key),
        _page("/dead", dead.dead),
        _page("/dead/confirm", dead.confirm, "POST"),
        _page("/dead/act", dead.act, "POST"),
        _page("/schedule", schedule.schedule),
    ]


def _page(path: str, view: View, method: str = "GET", *, for_all: bool = False) -> Route:
    """A page, by default for who is logged in. A server that is away makes one that says so and loads itself again."""

    async def endpoint(request: Request) -> ASGIApp:
        if not for_all and not session_of(request).known:
            if method == "GET" and path != "/events":
                return RedirectResponse("/login", 303)
            raise HTTPException(401, "Log in first.")
        try:
            return await view(request)
        except HTTPException:
            raise
        except RedisError as error:
            return _away(request, "Redis", describe_error(error))
        except DATABASE_ERRORS as error:
            return _away(request, "PostgreSQL", describe_database_error(error))
        except Exception as error:  # noqa: BLE001  # told in the log, by its types and places
            log.error("dashboard_failed", path=path, error=causes(error))  # noqa: TRY400  # without its text
            return _trouble(request, 500, "This page has a fault. The log of the dashboard says where.")

    return Route(path, endpoint, methods=[method])


def _away(request: Request, server: str, why: str) -> Response:
    # What was to be done may have been done: that is not asked for again by itself.
    reload_seconds = 3 if request.method == "GET" else None
    return _trouble(request, 503, f"{server} cannot be used: {why}.", reload_seconds)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101  # registered for these alone
    answer = _trouble(request, error.status_code, error.detail)
    answer.headers.update(error.headers or {})
    return answer


def _trouble(request: Request, status: int, text: str, reload_seconds: int | None = None) -> Response:
    title = HTTPStatus(status).phrase
    return desk_of(request).pages.answer(
        request, "trouble.html", status=status, code=status, title=title, text=text, reload_seconds=reload_seconds
    )

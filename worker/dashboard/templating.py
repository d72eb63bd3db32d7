"""Templates, filled in: everything escaped, and every name that a template uses must be there."""

import time
from datetime import tzinfo
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse

from worker.dashboard.forms import session_of
from worker.dashboard.security import Access
from worker.dashboard.sessions import Sessions
from worker.views import formatting as words

FOLDER = Path(__file__).parent


class Pages:
    """Fills in templates.

    Args:
        queue: the queue's name, on every page.
        zone: the time zone of all times.
        access: whether there are actions.
        sessions: whose forms these are.
    """

    def __init__(self, queue: str, zone: tzinfo, access: Access, sessions: Sessions) -> None:
        self._sessions = sessions
        self._zone = zone
        self._environment = Environment(
            loader=FileSystemLoader(FOLDER / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            auto_reload=False,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters |= {
            "count": words.count,
            "id_text": words.id_text,
            "rate": words.rate,
            "shown": words.shown,
            "span": words.span,
        }
        self._environment.globals |= {
            "queue": queue,
            "zone_name": str(zone),
            "allow_actions": access.allow_actions,
            "needs_login": sessions.needs_login,
            "moment": self.moment,
        }

    def moment(self, ms: float | None) -> words.Moment | None:
        """A time of the Unix clock as the pages write it."""
        return words.moment(ms, self._zone, time.time() * 1000)

    def part(self, template: str, **values: Any) -> str:
        """A part of a page that holds no form."""
        return self._environment.get_template(template).render(values)

    def answer(self, request: Request, template: str, *, status: int = 200, **values: Any) -> HTMLResponse:
        """A page for one browser: its forms bring the browser's CSRF token along."""
        session = session_of(request)
        own = {"csrf": self._sessions.csrf(session), "known": session.known, "path": request.url.path}
        return HTMLResponse(self.part(template, **own, **values), status)

"""Templates: everything is escaped, and a name that a template uses and is not given is an error."""

import time
from datetime import tzinfo
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse

from worker.dashboard.security import Access
from worker.dashboard.sessions import csrf_token, is_logged_in
from worker.views import formatting

FOLDER = Path(__file__).parent


class Templates:
    """Renders templates.

    Args:
        queue: the queue's name, on every page.
        zone: the time zone of all times.
        access: whether there is a login, and whether there are actions.
    """

    def __init__(self, queue: str, zone: tzinfo, access: Access) -> None:
        self._access = access
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
            "count": formatting.format_count,
            "duration": formatting.format_duration,
            "id": formatting.format_id,
            "rate": formatting.format_rate,
            "text": formatting.format_text,
        }
        self._environment.globals |= {
            "queue": queue,
            "zone_name": str(zone),
            "allow_actions": access.allow_actions,
            "needs_login": bool(access.token),
            "timestamp": self._timestamp,
        }

    def part(self, template: str, **values: Any) -> str:
        """A part of a page, without forms."""
        return self._environment.get_template(template).render(values)

    def page(self, request: Request, template: str, *, status: int = 200, **values: Any) -> HTMLResponse:
        """A whole page, whose forms contain the CSRF token of the browser's session."""
        own = {
            "csrf": csrf_token(request),
            "logged_in": is_logged_in(request, self._access),
            "path": request.url.path,
        }
        return HTMLResponse(self.part(template, **own, **values), status)

    def _timestamp(self, ms: float | None) -> formatting.Timestamp | None:
        return formatting.format_timestamp(ms, self._zone, time.time() * 1000)

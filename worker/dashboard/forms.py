"""What a browser posts: read within bounds, and only with the session's CSRF token."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs

from starlette.exceptions import HTTPException
from starlette.requests import Request

from worker.dashboard.sessions import Session, Sessions

MAX_BYTES = 64 * 1024
MAX_FIELDS = 128


async def read_form(request: Request, sessions: Sessions) -> Mapping[str, list[str]]:
    """The fields of a form.

    Raises:
        HTTPException: 415 for another type of content, 413 when there is too much of it, 400 when it is no form, 403
            without the CSRF token, or when another site's page posted it.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/x-www-form-urlencoded":
        raise HTTPException(415, "Only forms are taken here.")
    if request.headers.get("sec-fetch-site", "same-origin") not in {"same-origin", "none"}:
        raise HTTPException(403, "This form was sent by another site's page.")
    body = await _body(request)
    try:
        fields = parse_qs(body.decode(), keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError:
        raise HTTPException(400, f"This is no form, or one of more than {MAX_FIELDS} fields.") from None
    if not sessions.is_csrf(session_of(request), fields.get("csrf", [""])[-1]):
        raise HTTPException(403, "The form is too old, or not from this page: open the page again, and repeat it.")
    return fields


def session_of(request: Request) -> Session:
    """The session that the guard has found."""
    session: Any = request.state.session
    assert isinstance(session, Session)  # noqa: S101  # the guard stands before everything
    return session


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BYTES:
            raise HTTPException(413, f"More than {MAX_BYTES // 1024} KiB: tick fewer at once.")
    return bytes(body)

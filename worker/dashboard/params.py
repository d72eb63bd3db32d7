"""Input from a browser, validated: ids, page numbers and forms."""

from collections.abc import Mapping
from urllib.parse import parse_qs

from starlette.exceptions import HTTPException
from starlette.requests import Request

from worker.dashboard.sessions import is_csrf_token
from worker.views.formatting import MAX_ID_BYTES, unescape

MAX_PAGE = 100_000
MAX_ID_TEXT = 4 * MAX_ID_BYTES
"""An escaped byte takes four characters."""
MAX_FORM_BYTES = 64 * 1024
MAX_FIELDS = 128


def parse_id(text: str) -> bytes:
    r"""The bytes of an id that a page shows as text.

    Raises:
        HTTPException: 400 when it is not an id.
    """
    try:
        job_id = unescape(text.strip())
    except ValueError as error:
        raise HTTPException(400, f"This is not an id: {error}.") from None
    if not job_id or len(text) > MAX_ID_TEXT or len(job_id) > MAX_ID_BYTES:
        raise HTTPException(400, f"An id has 1 to {MAX_ID_BYTES} bytes. Use `worker dead` for longer ones.")
    return job_id


def page_number(request: Request) -> int:
    """The page of a list, from 1.

    Raises:
        HTTPException: 400 when it is not a number in bounds.
    """
    text = request.query_params.get("page", "1")
    if not (text.isascii() and text.isdigit() and len(text) < 7 and 1 <= int(text) <= MAX_PAGE):  # noqa: PLR2004
        raise HTTPException(400, f"A page is a number from 1 to {MAX_PAGE}.")
    return int(text)


async def read_form(request: Request) -> Mapping[str, list[str]]:
    """The fields of a form. Starlette's own parser does not bound the size of the body.

    Raises:
        HTTPException: 415 for another content type, 413 for too many bytes, 400 when it is not a form, 403 without the
            CSRF token, or when another site's page sent it.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/x-www-form-urlencoded":
        raise HTTPException(415, "Only forms are accepted.")
    if request.headers.get("sec-fetch-site", "same-origin") not in {"same-origin", "none"}:
        raise HTTPException(403, "This form was sent by another site's page.")
    body = await _read_body(request)
    try:
        fields = parse_qs(body.decode(), keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError:
        raise HTTPException(400, f"This is not a form, or it has more than {MAX_FIELDS} fields.") from None
    if not is_csrf_token(request, fields.get("csrf", [""])[-1]):
        raise HTTPException(403, "This form has expired or is from another page. Open the page again and repeat.")
    return fields


async def _read_body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_FORM_BYTES:
            raise HTTPException(413, f"More than {MAX_FORM_BYTES // 1024} KiB. Select fewer at once.")
    return bytes(body)

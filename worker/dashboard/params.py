"""What an address asks for: ids and page numbers, as far as they can be any."""

from starlette.exceptions import HTTPException
from starlette.requests import Request

from worker.views.escaped import unescape
from worker.views.formatting import LONGEST_ID

MOST_PAGES = 100_000
LONGEST_ASKED = 4 * LONGEST_ID
"""Of an id as text: every byte of it may be four characters."""


def id_of(text: str) -> bytes:
    r"""The id that is meant by a text as the pages show it.

    Raises:
        HTTPException: 400 when it is none.
    """
    try:
        job_id = unescape(text.strip())
    except ValueError as error:
        raise HTTPException(400, f"This is no id: {error}.") from None
    if not job_id or len(text) > LONGEST_ASKED or len(job_id) > LONGEST_ID:
        raise HTTPException(400, f"An id has 1 to {LONGEST_ID} bytes: use `worker dead` for longer ones.")
    return job_id


def page_of(request: Request) -> int:
    """The number of the page, from 1."""
    text = request.query_params.get("page", "1")
    if not (text.isascii() and text.isdigit() and len(text) < 7 and 1 <= int(text) <= MOST_PAGES):  # noqa: PLR2004
        raise HTTPException(400, f"A page is a number from 1 to {MOST_PAGES}.")
    return int(text)

"""Dead letters: the newest first, page by page; some of them replayed or purged, after a second look."""

from collections.abc import Mapping, Sequence

import structlog
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from producers import keys
from worker.dashboard.context import Desk, desk_of
from worker.dashboard.forms import read_form
from worker.dashboard.params import id_of, page_of
from worker.engine.replay import Replayed, replay
from worker.model.log_context import safe_job_id
from worker.queue.dead_letters import Payload, read_payloads
from worker.views.escaped import escape
from worker.views.formatting import LONGEST_ID
from worker.views.payload_summary import shape

PAGE = 50
SHAPE_BYTES = 16 * 1024
"""On the list, the payloads of up to this size are looked into; the page of a job reads larger ones."""
ACTIONS = ("replay", "purge")

log = structlog.get_logger("worker.dashboard")


async def dead(request: Request) -> Response:
    """One page of dead letters."""
    desk, page = desk_of(request), page_of(request)
    count = await desk.letters.count()
    found = await desk.letters.newest((page - 1) * PAGE, PAGE)
    letters = [letter for letter in found if 0 < len(letter.job_id) <= LONGEST_ID]
    payload_keys = [keys.dead_payload("").encode() + letter.job_id for letter in letters]
    kept = await read_payloads(desk.backend.redis, payload_keys, SHAPE_BYTES)
    return desk.pages.answer(
        request,
        "dead.html",
        letters=[
            (escape(letter.job_id), letter, _shape(payload)) for letter, payload in zip(letters, kept, strict=True)
        ],
        unnameable=len(found) - len(letters),
        count=count,
        page=page,
        pages=max(1, -(-count // PAGE)),
    )


async def confirm(request: Request) -> Response:
    """What is about to be done, to be looked at before it is."""
    desk = desk_of(request)
    action, job_ids = await _asked(request, desk)
    letters = [(escape(job_id), await desk.letters.find(job_id)) for job_id in job_ids]
    return desk.pages.answer(request, "confirm.html", action=action, letters=letters)


async def act(request: Request) -> Response:
    """Do it, and show what became of each. Safe to repeat."""
    desk = desk_of(request)
    action, job_ids = await _asked(request, desk)
    if action == "replay":
        replayed = await replay(desk.backend.redis, desk.backend.queue, desk.ledger, job_ids)
        results = [outcome.name.lower() for outcome in replayed]
        well = Replayed.REPLAYED.name.lower()
    else:
        results = ["purged" if purged else "not_there" for purged in await desk.letters.purge(job_ids)]
        well = "purged"
    acted = [safe_job_id(job_id) for job_id, result in zip(job_ids, results, strict=True) if result == well]
    line = {
        "job_ids": [job_id for job_id in acted if job_id is not None],
        "jobs": len(acted),
        "requested": len(job_ids),
        "remote": None if request.client is None else request.client.host,
    }
    if action == "replay":
        log.info("dashboard_replayed", **line)
    else:
        log.info("dashboard_purged", **line)
    told = [(escape(job_id), result) for job_id, result in zip(job_ids, results, strict=True)]
    return desk.pages.answer(request, "acted.html", action=action, results=told, well=well, done=len(acted))


async def _asked(request: Request, desk: Desk) -> tuple[str, list[bytes]]:
    """The action that a form asks for, and which letters it is about."""
    if not desk.access.allow_actions:
        raise HTTPException(403, "This page is for reading only: start it with --allow-actions, or use `worker dead`.")
    form: Mapping[str, Sequence[str]] = await read_form(request, desk.sessions)
    action = form.get("action", [""])[-1]
    if action not in ACTIONS:
        raise HTTPException(400, "This is nothing that can be done to a dead letter.")
    job_ids = list(dict.fromkeys(id_of(text) for text in form.get("id", [])))
    if not job_ids:
        raise HTTPException(400, "No dead letter is ticked: go back and tick those that are meant.")
    if len(job_ids) > PAGE:
        raise HTTPException(400, f"No more than {PAGE} at once: `worker dead` takes any number.")
    return action, job_ids


def _shape(kept: Payload | None) -> list[str]:
    """The names, types and sizes of a payload's fields; or one line that says why there are none."""
    match kept:
        case None:
            return ["the payload was gone"]
        case Payload(kind=kind, size_bytes=None):
            return [f"a key of another type: {kind}"]
        case Payload(size_bytes=size, data=None):
            return [f"{size:,} bytes"]
        case Payload(data=data):
            found = shape(data or b"")
            return [f"{name}: {kind}" for name, kind in found.get("fields", {}).items()] or ["cannot be read"]

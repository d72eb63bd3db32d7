"""Dead letters: the list, and replay and purge after a confirmation."""

import structlog
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from producers import keys
from worker.dashboard.context import DashboardContext, context_of
from worker.dashboard.params import page_number, parse_id, read_form
from worker.engine.replay import Replayed, replay
from worker.model.log_context import safe_job_id
from worker.queue.dead_letters import Payload, read_payloads
from worker.views.formatting import MAX_ID_BYTES, escape
from worker.views.payload_summary import summarize_payload

PAGE_SIZE = 50
MAX_SUMMARY_BYTES = 16 * 1024
"""The list summarizes payloads up to this size; the page of a job reads larger ones."""
ACTIONS = ("replay", "purge")

log = structlog.get_logger("worker.dashboard")


async def show_dead_letters(request: Request) -> Response:
    """One page of dead letters, newest first."""
    context, page = context_of(request), page_number(request)
    dead_letters = context.backend.dead_letters
    count = await dead_letters.count()
    found = await dead_letters.newest((page - 1) * PAGE_SIZE, PAGE_SIZE)
    letters = [letter for letter in found if 0 < len(letter.job_id) <= MAX_ID_BYTES]
    payload_keys = [keys.dead_payload("").encode() + letter.job_id for letter in letters]
    kept = await read_payloads(context.backend.redis, payload_keys, MAX_SUMMARY_BYTES)
    return context.templates.page(
        request,
        "dead.html",
        letters=[
            (escape(letter.job_id), letter, _summary(payload)) for letter, payload in zip(letters, kept, strict=True)
        ],
        hidden=len(found) - len(letters),
        count=count,
        page=page,
        pages=max(1, -(-count // PAGE_SIZE)),
    )


async def confirm(request: Request) -> Response:
    """What is about to be done, and the button that does it."""
    context = context_of(request)
    action, job_ids = await _read_request(request, context)
    letters = [(escape(job_id), await context.backend.dead_letters.find(job_id)) for job_id in job_ids]
    return context.templates.page(request, "confirm.html", action=action, letters=letters)


async def act(request: Request) -> Response:
    """Replay or purge, and show the result for each letter. Safe to repeat."""
    context = context_of(request)
    action, job_ids = await _read_request(request, context)
    if action == "replay":
        backend = context.backend
        replayed = await replay(backend.redis, backend.queue, backend.sessions, job_ids)
        results = [outcome.name.lower() for outcome in replayed]
        success = Replayed.REPLAYED.name.lower()
    else:
        results = ["purged" if purged else "not_found" for purged in await context.backend.dead_letters.purge(job_ids)]
        success = "purged"
    done = [safe_job_id(job_id) for job_id, result in zip(job_ids, results, strict=True) if result == success]
    line = {
        "job_ids": [job_id for job_id in done if job_id is not None],
        "jobs": len(done),
        "requested": len(job_ids),
        "remote": None if request.client is None else request.client.host,
    }
    if action == "replay":
        log.info("dashboard_replayed", **line)
    else:
        log.info("dashboard_purged", **line)
    shown = [(escape(job_id), result) for job_id, result in zip(job_ids, results, strict=True)]
    return context.templates.page(request, "result.html", action=action, results=shown, success=success, done=len(done))


async def _read_request(request: Request, context: DashboardContext) -> tuple[str, list[bytes]]:
    """The action that a form requests, and the ids of the letters."""
    if not context.access.allow_actions:
        raise HTTPException(403, "This dashboard is read only. Start it with --allow-actions, or use `worker dead`.")
    form = await read_form(request)
    action = form.get("action", [""])[-1]
    if action not in ACTIONS:
        raise HTTPException(400, "There is no such action.")
    job_ids = list(dict.fromkeys(parse_id(text) for text in form.get("id", [])))
    if not job_ids:
        raise HTTPException(400, "No dead letter is selected. Go back and select some.")
    if len(job_ids) > PAGE_SIZE:
        raise HTTPException(400, f"At most {PAGE_SIZE} at once. `worker dead` has no limit.")
    return action, job_ids


def _summary(kept: Payload | None) -> list[str]:
    """The names, types and sizes of a payload's fields, or one line that gives the reason why there are none."""
    match kept:
        case None:
            return ["no payload"]
        case Payload(kind=kind, size_bytes=None):
            return [f"a key of type {kind}"]
        case Payload(size_bytes=size, data=None):
            return [f"{size:,} bytes"]
        case Payload(data=data):
            found = summarize_payload(data or b"")
            return [f"{name}: {kind}" for name, kind in found.get("fields", {}).items()] or ["not readable"]

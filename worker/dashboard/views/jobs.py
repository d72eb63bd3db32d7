"""Jobs by their ids, with their whole stories, and ordering keys with the jobs that wait behind them."""

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from worker.dashboard import ordering
from worker.dashboard.context import Desk, desk_of
from worker.dashboard.params import id_of, page_of
from worker.queue import inspect as story
from worker.queue.status import RunningJob, queue_status
from worker.views.escaped import escape
from worker.views.formatting import LONGEST_ID, id_text
from worker.views.job_report import tell

PAGE = 50


async def jobs(request: Request) -> Response:
    """Where one looks for a job."""
    return desk_of(request).pages.answer(request, "jobs.html")


async def job(request: Request) -> Response:
    """A job's whole story."""
    desk = desk_of(request)
    if not request.query_params.get("id", "").strip():
        return RedirectResponse("/jobs", 303)
    job_id = id_of(request.query_params["id"])
    backend = desk.backend
    found = await story.read(backend.redis, backend.queue, desk.ledger, job_id, backend.max_payload_bytes)
    return desk.pages.answer(
        request,
        "job.html",
        status=200 if found.known or found.ledger_trouble else 404,
        job_id=escape(job_id),
        story=found,
        told=tell(found),
        key=escape(found.order.key) if found.order else None,
        holder=id_text(found.order.holder) if found.order and found.order.holder else None,
        runs=await _runs(desk, job_id) if found.state is story.State.CLAIMED else [],
    )


async def key(request: Request) -> Response:
    """Who holds an ordering key, and who waits behind it."""
    desk = desk_of(request)
    if not request.query_params.get("key", "").strip():
        return RedirectResponse("/jobs", 303)
    wanted, page = id_of(request.query_params["key"]), page_of(request)
    line = await ordering.read(desk.backend.redis, desk.backend.queue, wanted, (page - 1) * PAGE, PAGE)
    return desk.pages.answer(
        request,
        "key.html",
        key=escape(wanted),
        line=line,
        jobs=[(id_text(job_id), len(job_id) <= LONGEST_ID, place_ms) for job_id, place_ms in line.jobs],
        holder=id_text(line.holder) if line.holder else None,
        page=page,
        first=(page - 1) * PAGE + 1,
        pages=max(1, -(-line.parked // PAGE)),
    )


async def _runs(desk: Desk, job_id: bytes) -> list[tuple[bytes, RunningJob]]:
    """Which workers have said, in their last signs of life, that they run a job."""
    _, _, workers = await queue_status(desk.backend.redis, desk.backend.queue)
    return [
        (worker.name, run)
        for worker in workers
        for run in worker.beat.jobs
        if run.id is not None and run.id.encode() == job_id
    ]

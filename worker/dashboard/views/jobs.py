"""The page of a job, and of an ordering key with the jobs that wait behind it."""

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from producers.job_status import JobStatus
from worker.dashboard.context import DashboardContext, context_of
from worker.dashboard.params import page_number, parse_id
from worker.queue.inspect import read_ordering_key
from worker.queue.status import RunningJob, read_queue_status
from worker.views.formatting import MAX_ID_BYTES, escape, format_id
from worker.views.job_records import read_job_records
from worker.views.job_report import build_report

PAGE_SIZE = 50


async def show_search(request: Request) -> Response:
    """The search forms."""
    return context_of(request).templates.page(request, "jobs.html")


async def show_job(request: Request) -> Response:
    """A job: its state, its events, its payload without values."""
    context = context_of(request)
    if not request.query_params.get("id", "").strip():
        return RedirectResponse("/jobs", 303)
    job_id = parse_id(request.query_params["id"])
    backend = context.backend
    found = await read_job_records(
        backend.redis, backend.queue, backend.sessions, job_id, backend.settings.max_payload_bytes
    )
    return context.templates.page(
        request,
        "job.html",
        status=200 if found.exists or found.ledger_error else 404,
        job_id=escape(job_id),
        records=found,
        report=build_report(found),
        key=escape(found.order.key) if found.order else None,
        holder=format_id(found.order.holder) if found.order and found.order.holder else None,
        runs=await _running(context, job_id) if found.status is JobStatus.CLAIMED else [],
    )


async def show_key(request: Request) -> Response:
    """An ordering key: the job that holds it, and those parked behind it."""
    context = context_of(request)
    if not request.query_params.get("key", "").strip():
        return RedirectResponse("/jobs", 303)
    wanted, page = parse_id(request.query_params["key"]), page_number(request)
    backend = context.backend
    line = await read_ordering_key(backend.redis, backend.queue, wanted, (page - 1) * PAGE_SIZE, PAGE_SIZE)
    return context.templates.page(
        request,
        "key.html",
        key=escape(wanted),
        line=line,
        jobs=[(format_id(job_id), len(job_id) <= MAX_ID_BYTES, place_ms) for job_id, place_ms in line.jobs],
        holder=format_id(line.holder) if line.holder else None,
        page=page,
        first=(page - 1) * PAGE_SIZE + 1,
        pages=max(1, -(-line.parked // PAGE_SIZE)),
    )


async def _running(context: DashboardContext, job_id: bytes) -> list[tuple[bytes, RunningJob]]:
    """The workers whose last heartbeat lists a job as running."""
    _, _, workers = await read_queue_status(context.backend.redis, context.backend.queue)
    return [
        (worker.name, run)
        for worker in workers
        for run in worker.state.jobs
        if run.id is not None and run.id.encode() == job_id
    ]

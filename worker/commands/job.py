"""`worker job`: where one job is and what happened to it."""

from collections.abc import Iterable
from typing import Annotated, Any

import typer
from rich.text import Text
from sqlalchemy.ext.asyncio import async_sessionmaker

from producers.job_status import JobStatus
from worker.commands.common import (
    AsJson,
    Servers,
    console,
    for_people,
    print_json,
    settings_from,
    stop,
    table,
    with_servers,
)
from worker.settings import zone
from worker.views.formatting import escape, format_text, format_timestamp, unescape
from worker.views.job_records import JobRecords, read_job_records
from worker.views.job_report import JobReport, build_report

_STYLES = {"good": "green", "bad": "bold red", "live": "cyan", "wait": "yellow"}


def job(
    job_id: Annotated[str, typer.Argument(metavar="ID", help="The id, as logs and other commands show it.")],
    as_json: AsJson = False,
) -> None:
    """Show where a job is and what happened to it, from Redis, the ledger and the dead letters.

    Lists the fields of its payload and its reply, never their values. Exits with 1 when the job is unknown.
    """
    settings = settings_from()
    try:
        wanted = unescape(job_id)
    except ValueError as error:
        stop(f"{job_id!r} is not an id: {error}")

    async def read(servers: Servers) -> JobRecords:
        sessions = async_sessionmaker(servers.engine)
        return await read_job_records(servers.redis, settings.queue, sessions, wanted, settings.max_payload_bytes)

    found = with_servers(settings, read)
    report = build_report(found)
    if for_people(as_json=as_json):
        _show(found, report, settings.timezone)
    else:
        print_json(_as_json(found, report, settings.timezone))
    raise typer.Exit(0 if found.exists else 1)


def _as_json(found: JobRecords, report: JobReport, timezone: str) -> dict[str, Any]:
    return {
        "job_id": escape(found.job_id),
        "status": report.status.value,
        "headline": report.headline,
        "job": None if report.job is None else format_text(report.job),
        "attempts": report.attempts,
        "steps": [
            {"title": step.title, "at": _iso(step.at_ms, timezone), "detail": step.detail or None}
            for step in report.steps
        ],
        "payload": report.payload,
        "reply": report.reply or None,
        "ledger_error": found.ledger_error,
    }


def _iso(at_ms: float | None, timezone: str) -> str | None:
    at = format_timestamp(at_ms, zone(timezone), 0)
    return None if at is None else at.iso


def _show(found: JobRecords, report: JobReport, timezone: str) -> None:
    output = console()
    output.print(Text(escape(found.job_id), style="bold"))
    style = "green" if report.status.is_final else "bold red" if report.status is JobStatus.DEAD else "yellow"
    output.print(Text.assemble((report.status.value, style), f"  {report.headline}"), soft_wrap=True)
    for name, value in (("job", report.job), ("attempts", report.attempts), ("ledger", found.ledger_error)):
        if value is not None:
            output.print(Text.assemble((f"{name:<10}", "dim"), format_text(value)), soft_wrap=True)
    steps = table(show_header=False)
    for step in report.steps:
        at = format_timestamp(step.at_ms, zone(timezone), found.now_ms)
        steps.add_row(
            "" if at is None else at.text,
            Text("" if at is None else at.ago, style="dim"),
            Text(step.title, style=_STYLES.get(step.kind, "")),
            Text(step.detail, style="dim"),
        )
    output.print("", steps, sep="\n")
    for title, fields in (("payload", _fields(report.payload)), ("reply", report.reply.items())):
        if rows := list(fields):
            summary = table(show_header=False)
            for name, kind in rows:
                summary.add_row(Text(format_text(name)), Text(format_text(kind), style="dim"))
            output.print("", Text(title, style="dim"), summary, sep="\n")


def _fields(payload: dict[str, Any] | None) -> Iterable[tuple[str, str]]:
    if payload is None:
        return []
    if payload["error"] is not None:
        return [("not readable", payload["error"])]
    fields: dict[str, str] = payload["fields"]
    return fields.items()

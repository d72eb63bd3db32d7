"""`worker job`: the whole story of one job, for who has its id and wonders where it is."""

from collections.abc import Iterable
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text
from sqlalchemy.ext.asyncio import async_sessionmaker

from worker.commands.common import AsJson, Servers, for_people, print_json, settings_from, stop, with_servers
from worker.queue import inspect as story
from worker.queue.inspect import Story
from worker.settings import zone
from worker.views import job_report as telling
from worker.views.escaped import escape, unescape
from worker.views.formatting import moment, shown
from worker.views.job_report import Told

_STYLES = {"good": "green", "bad": "bold red", "live": "cyan", "wait": "yellow"}


def job(
    job_id: Annotated[str, typer.Argument(metavar="ID", help="As logs and other commands show it.")],
    as_json: AsJson = False,
) -> None:
    """Tell where a job is, what has happened to it and when, from Redis, the ledger and the dead letters.

    Of its payload and its reply the fields are told, and never the values. Ends with 1 when nobody knows the job.
    """
    settings = settings_from()
    try:
        wanted = unescape(job_id)
    except ValueError as error:
        stop(f"{job_id!r} is no id: {error}")

    async def look(servers: Servers) -> Story:
        sessions = async_sessionmaker(servers.engine)
        return await story.read(servers.redis, settings.queue, sessions, wanted, settings.max_payload_bytes)

    found = with_servers(settings, look)
    told = telling.tell(found)
    if for_people(as_json=as_json):
        _show(found, told, settings.timezone)
    else:
        print_json(_as_json(found, told, settings.timezone))
    raise typer.Exit(0 if found.known else 1)


def _as_json(found: Story, told: Told, timezone: str) -> dict[str, Any]:
    return {
        "job_id": escape(found.job_id),
        "state": told.state.value,
        "says": told.headline,
        "job": None if told.job is None else shown(told.job),
        "tries": told.tries,
        "steps": [
            {"what": step.title, "at": _iso(step.at_ms, timezone), "detail": step.detail or None} for step in told.steps
        ],
        "payload": told.payload,
        "reply": told.reply or None,
        "ledger_trouble": found.ledger_trouble,
    }


def _iso(at_ms: float | None, timezone: str) -> str | None:
    at = moment(at_ms, zone(timezone), 0)
    return None if at is None else at.iso


def _show(found: Story, told: Told, timezone: str) -> None:
    console = Console(highlight=False, markup=False, emoji=False)
    console.print(Text(escape(found.job_id), style="bold"))
    style = "green" if told.state.ended else "bold red" if told.state is story.State.DEAD else "yellow"
    console.print(Text.assemble((told.state.value, style), f"  {told.headline}"), soft_wrap=True)
    facts = [("job", told.job), ("tries", told.tries), ("ledger", found.ledger_trouble)]
    for name, value in facts:
        if value is not None:
            console.print(Text.assemble((f"{name:<8}", "dim"), shown(value)), soft_wrap=True)
    steps = Table(box=None, pad_edge=False, show_header=False)
    for step in told.steps:
        at = moment(step.at_ms, zone(timezone), found.now_ms)
        steps.add_row(
            "" if at is None else at.text,
            Text("" if at is None else at.ago, style="dim"),
            Text(step.title, style=_STYLES.get(step.kind, "")),
            Text(step.detail, style="dim"),
        )
    console.print("", steps, sep="\n")
    for title, fields in (("payload", _fields(told.payload)), ("reply", told.reply.items())):
        if rows := list(fields):
            table = Table(box=None, pad_edge=False, show_header=False)
            for name, kind in rows:
                table.add_row(Text(shown(name)), Text(shown(kind), style="dim"))
            console.print("", Text(title, style="dim"), table, sep="\n")


def _fields(payload: dict[str, Any] | None) -> Iterable[tuple[str, str]]:
    if payload is None:
        return []
    if payload["trouble"] is not None:
        return [("cannot be read", payload["trouble"])]
    fields: dict[str, str] = payload["fields"]
    return fields.items()

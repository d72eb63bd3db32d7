"""Dead letters as JSON, as rows of a table, and one in full. Values of a payload are shown only on request."""

import shlex
from datetime import UTC
from typing import Any

from rich.table import Column
from rich.text import Text

from worker.commands.common import console
from worker.queue.dead_letters import DeadLetter, Payload
from worker.views.formatting import escape, format_text, format_timestamp
from worker.views.payload_summary import summarize_payload


def letter_json(letter: DeadLetter) -> dict[str, Any]:
    """What is recorded about a death."""
    death = letter.record
    return {
        "id": escape(letter.job_id),
        "job": death.job,
        "code": death.code,
        "detail": death.detail,
        "attempts": death.attempts,
        "enqueued_at": _iso(death.enqueued_ms) if death.enqueued_ms else None,
        "died_at": _iso(letter.died_ms),
        "worker": death.worker,
    }


def payload_json(payload: Payload, *, raw: bool) -> dict[str, Any]:
    """The fields of a payload, their types and sizes; with `raw`, its bytes too."""
    about: dict[str, Any] = {"type": payload.kind, "bytes": payload.size_bytes}
    if payload.size_bytes is None:
        return about | {"not_read": "the key is not a string"}
    if payload.data is None:
        return about | {"not_read": "larger than WORKER_MAX_PAYLOAD_BYTES"}
    about |= summarize_payload(payload.data)
    return about | {"raw": escape(payload.data).replace("\\x20", " ")} if raw else about


def columns() -> list[Column]:
    """The columns of the table."""
    return [
        Column("died (UTC)", no_wrap=True),
        Column("id", overflow="fold"),
        Column("job", overflow="fold"),
        Column("code", style="red", no_wrap=True),
        Column("attempts", justify="right"),
        Column("detail", overflow="fold", style="dim"),
    ]


def row(letter: DeadLetter) -> list[Text]:
    """A letter as a row of the table. The id can be pasted into a shell."""
    death, died = letter.record, format_timestamp(letter.died_ms, UTC, 0)
    values = (died and died.text, _shell_id(letter.job_id), death.job, death.code, death.attempts, death.detail)
    return [Text("" if value is None else format_text(value)) for value in values]


def show_letter(letter: DeadLetter, payload: dict[str, Any] | None) -> None:
    """Print one letter and the summary of its payload."""
    output = console(soft_wrap=True)
    lines = letter_json(letter) | {"id": _shell_id(letter.job_id)}
    if payload is None:
        lines["payload"] = "none: it was lost before the job died"
    else:
        lines |= {f"payload {name}": value for name, value in payload.items() if name not in {"fields", "raw"}}
    for name, value in lines.items():
        if value not in (None, []):
            text = ", ".join(value) if isinstance(value, list) else format_text(value)
            output.print(Text.assemble((f"{name:<20} ", "dim"), text))
    if payload is None:
        return
    for name, kind in payload.get("fields", {}).items():
        output.print(Text.assemble((f"{'payload field':<20} ", "dim"), f"{name}: {kind}"))
    if "raw" in payload:
        output.print(payload["raw"])
    elif "not_read" not in payload:
        output.print(Text("--payload shows the bytes, with all values", style="dim"))


def _shell_id(job_id: bytes) -> str:
    return shlex.quote(escape(job_id))


def _iso(ms: float) -> str | None:
    at = format_timestamp(ms, UTC, 0)
    return None if at is None else at.iso

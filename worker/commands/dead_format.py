"""How dead letters look: as JSON, as rows of a table, and one by itself. None of it shows a value unless asked to."""

import shlex
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Column
from rich.text import Text

from worker.queue.dead_letters import DeadLetter, Payload
from worker.views.escaped import escape
from worker.views.payload_summary import shape

LONGEST_SHOWN = 300
"""A longer text is cut on a terminal. No job id is as long."""


def letter_as_json(letter: DeadLetter) -> dict[str, Any]:
    """All that is known of a death."""
    said = letter.record
    return {
        "id": escape(letter.job_id),
        "job": said.job,
        "code": said.code,
        "detail": said.detail,
        "tries": said.attempts,
        "enqueued_at": _time(said.enqueued_ms) if said.enqueued_ms else None,
        "died_at": _time(letter.died_ms),
        "worker": said.worker,
    }


def payload_as_json(payload: Payload, *, raw: bool) -> dict[str, Any]:
    """What a payload holds: the names of its fields, their types and sizes; and its bytes if they are asked for."""
    told: dict[str, Any] = {"type": payload.kind, "bytes": payload.size_bytes}
    if payload.size_bytes is None:
        return told | {"not_read": "its key is no string"}
    if payload.data is None:
        return told | {"not_read": "it is larger than WORKER_MAX_PAYLOAD_BYTES"}
    told |= shape(payload.data)
    return told | {"raw": escape_text(payload.data)} if raw else told


def escape_text(data: bytes) -> str:
    """Bytes as one line of printable ASCII, blanks left as they are."""
    return escape(data).replace("\\x20", " ")


def columns() -> list[Column]:
    """The columns of the table."""
    return [
        Column("died (UTC)", no_wrap=True),
        Column("id", overflow="fold"),
        Column("job", overflow="fold"),
        Column("code", style="red", no_wrap=True),
        Column("tries", justify="right"),
        Column("detail", overflow="fold", style="dim"),
    ]


def row(letter: DeadLetter) -> list[Text]:
    """A letter as a row of the table. The id can be pasted into a shell."""
    told = letter_as_json(letter)
    died = "" if told["died_at"] is None else told["died_at"][:19].replace("T", " ")
    values = (died, _pasteable(letter.job_id), told["job"], told["code"], told["tries"], told["detail"])
    return [Text("" if value is None else _shown(str(value))) for value in values]


def show_letter(letter: DeadLetter, payload: dict[str, Any] | None) -> None:
    """Print one letter and what is told of its payload."""
    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    lines = letter_as_json(letter) | {"id": _pasteable(letter.job_id)}
    if payload is None:
        lines["payload"] = "none: it was gone before the job died"
    else:
        lines |= {f"payload {name}": value for name, value in payload.items() if name not in {"fields", "raw"}}
    for name, value in lines.items():
        if value not in (None, []):
            shown = ", ".join(value) if isinstance(value, list) else _shown(str(value))
            console.print(Text.assemble((f"{name:<20} ", "dim"), shown))
    if payload is None:
        return
    for name, kind in payload.get("fields", {}).items():
        console.print(Text.assemble((f"{'payload field':<20} ", "dim"), f"{name}: {kind}"))
    if "raw" in payload:
        console.print(payload["raw"])
    elif "not_read" not in payload:
        console.print(Text("--payload shows its bytes, with all values", style="dim"))


def _pasteable(job_id: bytes) -> str:
    return shlex.quote(escape(job_id))


def _shown(text: str) -> str:
    line = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
    return line if len(line) <= LONGEST_SHOWN else line[:LONGEST_SHOWN] + "…"


def _time(ms: float) -> str | None:
    try:
        return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds")
    except (ValueError, OverflowError, OSError):
        return None  # somebody else's number

"""What the command prints: text on a terminal, one JSON object a line in a pipe, and errors on stderr, a line each."""

import json
import os
import sys
from collections.abc import Mapping
from enum import IntEnum
from typing import Any

from rich.console import Console
from rich.text import Text

_LONGEST_VALUE = 200
_STYLES = {
    "accepted": "green",
    "known already": "yellow",
    "done": "bold green",
    "rejected": "bold yellow",
    "dead": "bold red",
    "cancelled": "bold red",
}


class Exit(IntEnum):
    """What the exit codes mean."""

    OK = 0
    REFUSED = 1
    """Rejected, dead, cancelled or not accepted; of a file, some lines."""
    USAGE = 2
    """The command or the message is wrong: nothing was sent."""
    UNKNOWN = 3
    """Redis is away, or the outcome is not known."""
    INTERRUPTED = 130


class Failure(Exception):
    """Ends the command: one line for stderr, and the exit code."""

    def __init__(self, text: str, code: Exit) -> None:
        super().__init__(text)
        self.code = code


def error_console() -> Console:
    """The console of stderr. Lines are never wrapped: others read them too."""
    return Console(stderr=True, soft_wrap=True, highlight=False, markup=False, emoji=False)


def print_error(text: str, console: Console | None = None) -> None:
    """Print one line that says what went wrong and what to do."""
    line = Text.assemble(("error:", "bold red"), " ", printable(text))
    (console or error_console()).print(line)


def print_job(answer: Mapping[str, Any]) -> None:
    """Print what became of one job."""
    if not sys.stdout.isatty():
        print_json(answer)
        return
    console = Console(soft_wrap=True, highlight=False, markup=False, emoji=False)
    state = "accepted" if answer["accepted"] else "known already"
    console.print(Text.assemble((state, _STYLES[state]), "  ", answer["job_id"]))
    if (status := answer.get("status")) is None:
        return
    said = f"  {answer['code']}: {printable(answer['detail'])}" if "code" in answer else ""
    console.print(Text.assemble((status, _STYLES.get(status, "yellow")), said))
    reply = answer.get("reply", {})
    width = max(map(len, reply), default=0)
    for name, value in reply.items():
        console.print(Text.assemble((f"  {name:<{width}}", "dim"), "  ", _shown(value)))


def print_json(answer: Mapping[str, Any]) -> None:
    """Print one JSON object as one line of ASCII, so that no encoding of a pipe can spoil it."""
    print_line(json.dumps(answer))


def print_line(text: str) -> None:
    """Print a line at once. Whoever closed the pipe has seen enough: what the command did is done all the same."""
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        # Else the interpreter would try once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def printable(text: str) -> str:
    """Text that cannot steer a terminal, and is one line.

    >>> printable("a\\x1b[2Jb\\nc")
    'a\\\\x1b[2Jb\\\\nc'
    """
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


def _shown(value: object) -> str:
    text = printable(value if isinstance(value, str) else json.dumps(value))
    return text if len(text) <= _LONGEST_VALUE else text[:_LONGEST_VALUE] + "…"

"""Output: text on a terminal, one JSON object per line in a pipe, and one line for each error on stderr."""

import json
import os
import sys
from collections.abc import Mapping
from enum import IntEnum
from typing import Any

from rich.console import Console
from rich.text import Text

_MAX_VALUE_LENGTH = 200
_STYLES = {
    "accepted": "green",
    "known already": "yellow",
    "done": "bold green",
    "rejected": "bold yellow",
    "dead": "bold red",
    "cancelled": "bold red",
}


class Exit(IntEnum):
    """The exit codes."""

    OK = 0
    REFUSED = 1
    """The job was rejected, dead, cancelled or not accepted; or lines of a file were refused."""
    USAGE = 2
    """The command or the message is wrong: nothing was sent."""
    UNKNOWN = 3
    """Redis does not answer, or the outcome is unknown."""
    INTERRUPTED = 130


class Failure(Exception):
    """Ends the command with one line on stderr and an exit code."""

    def __init__(self, text: str, code: Exit) -> None:
        super().__init__(text)
        self.code = code


def error_console() -> Console:
    """The console of stderr. It does not wrap lines, because programs read them, too."""
    return Console(stderr=True, soft_wrap=True, highlight=False, markup=False, emoji=False)


def print_error(text: str, console: Console | None = None) -> None:
    """Print an error as one line."""
    line = Text.assemble(("error:", "bold red"), " ", printable(text))
    (console or error_console()).print(line)


def print_job(answer: Mapping[str, Any]) -> None:
    """Print the result of one command: `answer` has the job's id and what is known of its outcome."""
    if not sys.stdout.isatty():
        print_json(answer)
        return
    console = Console(soft_wrap=True, highlight=False, markup=False, emoji=False)
    state = "accepted" if answer["accepted"] else "known already"
    console.print(Text.assemble((state, _STYLES[state]), "  ", answer["job_id"]))
    if (status := answer.get("status")) is None:
        return
    reason = f"  {answer['code']}: {printable(answer['detail'])}" if "code" in answer else ""
    console.print(Text.assemble((status, _STYLES.get(status, "yellow")), reason))
    reply = answer.get("reply", {})
    width = max(map(len, reply), default=0)
    for name, value in reply.items():
        console.print(Text.assemble((f"  {name:<{width}}", "dim"), "  ", _shown(value)))


def print_json(answer: Mapping[str, Any]) -> None:
    """Print a JSON object as one line of ASCII, which is valid in every encoding."""
    print_line(json.dumps(answer))


def print_line(text: str) -> None:
    """Print a line at once. A closed pipe is not an error: the command has done its work."""
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        # Otherwise the interpreter flushes again at exit and fails.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def printable(text: str) -> str:
    """Text as one line without control characters.

    >>> printable("a\\x1b[2Jb\\nc")
    'a\\\\x1b[2Jb\\\\nc'
    """
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


def _shown(value: object) -> str:
    text = printable(value if isinstance(value, str) else json.dumps(value))
    return text if len(text) <= _MAX_VALUE_LENGTH else text[:_MAX_VALUE_LENGTH] + "…"

"""The output of a load: progress, bad lines, and a summary."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from producers.cli.load import Load
from producers.cli.output import print_json, print_line, printable
from producers.cli.records import BadLine, Lines

MAX_PRINTED_LINES = 20


class Refusals:
    """Reports the first bad lines on stderr, and all of them in a file if there is one."""

    def __init__(self, console: Console, file: IO[str] | None) -> None:
        self._console = console
        self._file = file
        self._count = 0

    def add(self, bad: BadLine) -> None:
        """Report one line."""
        self._count += 1
        if self._count <= MAX_PRINTED_LINES:
            self._console.print(f"line {bad.line}: {printable('; '.join(bad.problems))}")
        if self._file is not None:
            self._file.write(json.dumps({"line": bad.line, "problems": bad.problems}) + "\n")

    def end(self) -> None:
        """Print how many more lines there were."""
        if self._count > MAX_PRINTED_LINES:
            more = "" if self._file is not None else "; --errors FILE keeps them all"
            self._console.print(f"… and {self._count - MAX_PRINTED_LINES} more{more}")


@contextmanager
def progress_bar(console: Console, lines: Lines, total_bytes: int | None) -> Iterator[Callable[[], None]]:
    """Show on a terminal how much of the file has been read. Yields the function that updates it."""
    if not console.is_terminal:
        yield lambda: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("loading", total=total_bytes)
        yield lambda: progress.update(task, completed=lines.bytes_read)


class Summary:
    """The counts of a load and its duration."""

    def __init__(self, load: Load, *, prefix: str, dry_run: bool) -> None:
        self._load = load
        self._prefix = prefix
        self._dry_run = dry_run
        self._began = time.monotonic()

    def print(self, *, finished: bool) -> None:
        """Print a sentence on a terminal, a JSON object in a pipe."""
        seconds = max(time.monotonic() - self._began, 0.001)
        if sys.stdout.isatty():
            print_line(self._sentence(seconds))
        else:
            print_json(self._object(seconds) | ({} if finished else {"next_line": self._load.next_line}))

    def _sentence(self, seconds: float) -> str:
        load = self._load
        if self._dry_run:
            return f"{load.valid:,} of {load.lines:,} lines are valid, {load.refused:,} refused, in {seconds:.1f} s"
        return (
            f"{load.accepted:,} accepted, {load.known:,} already known, {load.refused:,} refused of {load.lines:,} "
            f"lines, in {seconds:.1f} s ({load.accepted / seconds:,.0f} jobs/s)"
        )

    def _object(self, seconds: float) -> dict[str, object]:
        load = self._load
        counts = {"lines": load.lines, "refused": load.refused, "seconds": round(seconds, 3)}
        if self._dry_run:
            return {"dry_run": True, "valid": load.valid, **counts}
        return {
            "accepted": load.accepted,
            "already_known": load.known,
            **counts,
            "jobs_per_second": round(load.accepted / seconds),
            "idempotency_prefix": self._prefix,
        }

"""The output of a load: progress, bad lines, and a summary."""

import json
import sys
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


def print_summary(load: Load, *, prefix: str, dry_run: bool, seconds: float, finished: bool) -> None:
    """Print the counts of a load: a sentence on a terminal, a JSON object in a pipe."""
    if sys.stdout.isatty():
        print_line(_sentence(load, seconds, dry_run=dry_run))
        return
    counts: dict[str, object] = {"lines": load.lines, "refused": load.refused, "seconds": round(seconds, 3)}
    if dry_run:
        counts = {"dry_run": True, "valid": load.valid, **counts}
    else:
        counts = {"accepted": load.accepted, "already_known": load.known, **counts}
        counts |= {"jobs_per_second": round(load.accepted / seconds), "idempotency_prefix": prefix}
    print_json(counts if finished else {**counts, "next_line": load.next_line})


def _sentence(load: Load, seconds: float, *, dry_run: bool) -> str:
    if dry_run:
        return f"{load.valid:,} of {load.lines:,} lines are valid, {load.refused:,} refused, in {seconds:.1f} s"
    return (
        f"{load.accepted:,} accepted, {load.known:,} already known, {load.refused:,} refused of {load.lines:,} "
        f"lines, in {seconds:.1f} s ({load.accepted / seconds:,.0f} jobs/s)"
    )

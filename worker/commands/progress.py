"""A bar for commands that take a while: on a terminal, on stderr, and gone when they have ended."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from worker.commands.common import errors


class Bar:
    """What is told to the bar."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task

    def total(self, count: int) -> None:
        """So much there is to do."""
        self._progress.update(self._task, total=count)

    def advance(self, count: int) -> None:
        """So much more is done."""
        self._progress.advance(self._task, count)


@contextmanager
def progress(name: str) -> Iterator[Bar]:
    """Show a bar of this name while the block runs, if somebody sees it."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as shown:
        yield Bar(shown, shown.add_task(name, total=None))

"""Which dead letters a command handles, page by page, with a progress bar."""

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from worker.commands.common import errors, parse_age, stop
from worker.queue.dead_letters import PAGE_SIZE, DeadLetter, DeadLetters
from worker.views.formatting import unescape

Ids = Annotated[list[str] | None, typer.Argument(metavar="ID", show_default=False, help="Ids, as `list` shows them.")]
All = Annotated[bool, typer.Option("--all", help="All letters that match the filters.")]
Job = Annotated[str | None, typer.Option(help="Only this job type, such as `create_user`.", show_default=False)]
Code = Annotated[str | None, typer.Option(help="Only this error code, such as `failed`.", show_default=False)]
OlderThan = Annotated[
    timedelta | None,
    typer.Option(
        parser=parse_age, metavar="AGE", help="Only jobs that died at least this long ago: 90m, 7d.", show_default=False
    ),
]


@dataclass(frozen=True, slots=True)
class Filters:
    """Conditions on letters; None matches anything."""

    job: str | None = None
    code: str | None = None
    older_than: timedelta | None = None

    @property
    def min_age(self) -> timedelta:
        """How long ago a job must have died."""
        return self.older_than or timedelta(0)

    def match(self, letter: DeadLetter) -> bool:
        """Whether a letter that is old enough meets the other conditions."""
        return self.job in (None, letter.record.job) and self.code in (None, letter.record.code)


class Bar:
    """A progress bar."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task

    def set_total(self, count: int) -> None:
        """Set how many letters there are."""
        self._progress.update(self._task, total=count)

    def advance(self, count: int) -> None:
        """Count letters as handled."""
        self._progress.advance(self._task, count)


@contextmanager
def progress_bar(name: str) -> Iterator[Bar]:
    """Show a bar on stderr while the block runs, if stderr is a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as progress:
        yield Bar(progress, progress.add_task(name, total=None))


@dataclass(frozen=True, slots=True)
class Selection:
    """Letters by their ids, or all that match the filters."""

    job_ids: list[bytes]
    filters: Filters

    @classmethod
    def of(cls, given: list[str] | None, filters: Filters, *, every: bool) -> "Selection":
        """The selection that the arguments of a command describe. Exits when they are none, or contradict."""
        if given and (every or filters != Filters()):
            stop("give ids, or --all and filters, not both")
        if not given and not every:
            stop("give ids, or --all, narrowed by --job, --code and --older-than")
        return cls(list(dict.fromkeys(map(parse_id, given or []))), filters)

    async def pages(self, letters: DeadLetters, bar: Bar) -> AsyncIterator[tuple[list[bytes], float | None]]:
        """Pages of ids, each with the time of its last death, or None for ids that were given."""
        if self.job_ids:
            bar.set_total(len(self.job_ids))
            for start in range(0, len(self.job_ids), PAGE_SIZE):
                page = self.job_ids[start : start + PAGE_SIZE]
                yield page, None
                bar.advance(len(page))
            return
        bar.set_total(await letters.count(self.filters.min_age))
        async for found in letters.pages(self.filters.min_age):
            if job_ids := [letter.job_id for letter in found if self.filters.match(letter)]:
                yield job_ids, found[-1].died_ms
            bar.advance(len(found))


def parse_id(given: str) -> bytes:
    """The id that was given in its escaped form. Exits when it is invalid."""
    try:
        return unescape(given)
    except ValueError as error:
        stop(f"this is not an id as `worker dead list` shows it: {error}")

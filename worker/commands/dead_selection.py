"""Which dead letters a command is about: those that are named, or those that the filters leave."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated

import typer

from worker.commands.common import parse_age, stop
from worker.commands.progress import Bar
from worker.queue.dead_letters import PAGE_SIZE, DeadLetter, DeadLetters
from worker.views.escaped import unescape

Ids = Annotated[list[str] | None, typer.Argument(metavar="ID", show_default=False, help="Ids, as `list` shows them.")]
All = Annotated[bool, typer.Option("--all", help="All letters that the filters leave.")]
Job = Annotated[str | None, typer.Option(help="Only letters of this job, such as `create_user`.", show_default=False)]
Code = Annotated[str | None, typer.Option(help="Only letters of this code, such as `failed`.", show_default=False)]
OlderThan = Annotated[
    timedelta | None,
    typer.Option(parser=parse_age, metavar="AGE", help="Only jobs that died so long ago: 90m, 7d.", show_default=False),
]


@dataclass(frozen=True, slots=True)
class Filters:
    """What letters must be like; None: anything will do."""

    job: str | None = None
    code: str | None = None
    older_than: timedelta | None = None

    @property
    def age(self) -> timedelta:
        """How long ago a job must have died at least."""
        return self.older_than or timedelta(0)

    def leave(self, letter: DeadLetter) -> bool:
        """Whether a letter that is old enough is like that."""
        return self.job in (None, letter.record.job) and self.code in (None, letter.record.code)


@dataclass(frozen=True, slots=True)
class Selection:
    """Some letters by their ids, or all that the filters leave."""

    job_ids: list[bytes]
    filters: Filters

    @classmethod
    def of(cls, given: list[str] | None, filters: Filters, *, every: bool) -> "Selection":
        """What the arguments of a command select; or the end of the command."""
        if given and (every or filters != Filters()):
            stop("give ids, or --all and filters, not both")
        if not given and not every:
            stop("say which: ids, or --all, narrowed by --job, --code and --older-than")
        return cls(list(dict.fromkeys(map(job_id_of, given or []))), filters)

    async def pages(self, letters: DeadLetters, bar: Bar) -> AsyncIterator[tuple[list[bytes], float | None]]:
        """The ids, as they were given or in the order of the deaths, and until when these were if that matters."""
        if self.job_ids:
            bar.total(len(self.job_ids))
            for start in range(0, len(self.job_ids), PAGE_SIZE):
                page = self.job_ids[start : start + PAGE_SIZE]
                yield page, None
                bar.advance(len(page))
            return
        bar.total(await letters.count(self.filters.age))
        async for found in letters.pages(self.filters.age):
            if job_ids := [letter.job_id for letter in found if self.filters.leave(letter)]:
                yield job_ids, found[-1].died_ms
            bar.advance(len(found))


def job_id_of(given: str) -> bytes:
    """The id that was given in its printable form; or the end of the command."""
    try:
        return unescape(given)
    except ValueError as error:
        stop(f"this is no id as `worker dead list` shows them: {error}")

"""`worker dead`: list, show, replay and purge dead letters."""

import sys
from collections import Counter
from collections.abc import Iterable
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from worker.commands.common import AsJson, Servers, errors, for_people, print_json, settings_from, stop, with_servers
from worker.commands.dead_format import columns, letter_as_json, payload_as_json, row, show_letter
from worker.commands.dead_selection import All, Code, Filters, Ids, Job, OlderThan, Selection, job_id_of
from worker.commands.progress import progress
from worker.database.session import create_sessions
from worker.engine.replay import Replayed
from worker.engine.replay import replay as replay_letters
from worker.queue.dead_letters import DeadLetter, DeadLetters
from worker.views.escaped import escape

MOST_NAMED = 100
"""How many of the letters that were not dealt with a report names."""

app = typer.Typer(
    no_args_is_help=True,
    help="""Jobs that died, kept whole: after their tries, or because they could not be read.

Ids are shown, and taken, as text: a byte that is not printable is `\\x` and two hexadecimal digits.""",
)


@app.command(name="list")
def list_letters(
    *,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="At most so many.")] = 50,
    job: Job = None,
    code: Code = None,
    older_than: OlderThan = None,
    as_json: AsJson = False,
) -> None:
    """Show dead letters, the newest first. In a pipe, one JSON object a line."""
    settings = settings_from()
    filters = Filters(job, code, older_than)

    async def read(servers: Servers) -> list[DeadLetter]:
        found: list[DeadLetter] = []
        async for letters in DeadLetters(servers.redis, settings.queue).pages(filters.age, newest_first=True):
            found += filter(filters.leave, letters)
            if len(found) > limit:
                break
        return found

    letters = with_servers(settings, read)
    if not for_people(as_json=as_json):
        for letter in letters[:limit]:
            print_json(letter_as_json(letter))
        return
    table = Table(*columns(), box=None, pad_edge=False, header_style="dim")
    for letter in letters[:limit]:
        table.add_row(*row(letter))
    Console(highlight=False, markup=False, emoji=False).print(table if letters else "no dead letters")
    if len(letters) > limit:
        errors.print(f"these are the newest {limit}: --limit shows more")


@app.command()
def show(
    job_id: Annotated[str, typer.Argument(metavar="ID", help="The id, as `list` shows it.")],
    *,
    payload: Annotated[bool, typer.Option("--payload", help="Show the payload's own bytes, with all values.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show one dead letter: what is known of the death, and what the payload holds, without its values."""
    settings = settings_from()
    wanted = job_id_of(job_id)

    async def read(servers: Servers) -> tuple[DeadLetter, dict[str, Any] | None] | None:
        letters = DeadLetters(servers.redis, settings.queue)
        if (letter := await letters.find(wanted)) is None:
            return None
        kept = await letters.payload(wanted, settings.max_payload_bytes)
        return letter, None if kept is None else payload_as_json(kept, raw=payload)

    if (found := with_servers(settings, read)) is None:
        stop(f"no dead letter has the id {escape(wanted)}: `worker dead list` shows them", code=1)
    letter, kept = found
    if for_people(as_json=as_json):
        show_letter(letter, kept)
    else:
        print_json({**letter_as_json(letter), "payload": kept})


@app.command()
def replay(
    ids: Ids = None,
    *,
    every: All = False,
    job: Job = None,
    code: Code = None,
    older_than: OlderThan = None,
    as_json: AsJson = False,
) -> None:
    """Put dead letters back into the queue under their own ids, with all their tries before them.

    A job whose effect is there by now is answered from the ledger, and has no second one. Ends with 1 when a letter
    that was named was not replayed.
    """
    settings = settings_from()
    selection = Selection.of(ids, Filters(job, code, older_than), every=every)

    async def act(servers: Servers) -> "Report":
        letters, sessions = DeadLetters(servers.redis, settings.queue), create_sessions(servers.engine)
        report = Report(outcome.name.lower() for outcome in Replayed)
        with progress("replaying") as bar:
            async for page, _ in selection.pages(letters, bar):
                for job_id, outcome in zip(
                    page, await replay_letters(servers.redis, settings.queue, sessions, page), strict=True
                ):
                    report.add(job_id, outcome.name.lower(), well=outcome is Replayed.REPLAYED)
        return report

    _tell(with_servers(settings, act), selection, as_json=as_json)


@app.command()
def purge(
    ids: Ids = None,
    *,
    every: All = False,
    job: Job = None,
    code: Code = None,
    older_than: OlderThan = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete dead letters and their payloads for good. Ends with 1 when a letter that was named was not there."""
    settings = settings_from()
    selection = Selection.of(ids, Filters(job, code, older_than), every=every or older_than is not None)
    if not yes:
        _ask(selection)

    async def act(servers: Servers) -> "Report":
        letters = DeadLetters(servers.redis, settings.queue)
        report = Report(("purged", "not_there"))
        with progress("purging") as bar:
            async for page, until_ms in selection.pages(letters, bar):
                for job_id, purged in zip(page, await letters.purge(page, until_ms=until_ms), strict=True):
                    report.add(job_id, "purged" if purged else "not_there", well=purged)
        return report

    _tell(with_servers(settings, act), selection, as_json=as_json)


class Report:
    """How many letters came to what, and the first of those that were not dealt with."""

    def __init__(self, outcomes: Iterable[str]) -> None:
        self.counts = Counter(dict.fromkeys(outcomes, 0))
        self.others: dict[str, str] = {}

    def add(self, job_id: bytes, outcome: str, *, well: bool) -> None:
        """Count one letter."""
        self.counts[outcome] += 1
        if not well and len(self.others) < MOST_NAMED:
            self.others[escape(job_id)] = outcome


def _ask(selection: Selection) -> None:
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        stop("what is purged is gone for good, and nobody can be asked here: add --yes")
    count = len(selection.job_ids)
    which = f"{count} dead letter{'s' * (count != 1)}" if count else "all dead letters that the filters leave"
    typer.confirm(f"Delete {which}, payloads included, for good?", abort=True, err=True)


def _tell(report: Report, selection: Selection, *, as_json: bool) -> None:
    if for_people(as_json=as_json):
        console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
        for job_id, outcome in report.others.items():
            console.print(f"{outcome.replace('_', ' ')}: {job_id}")
        console.print(", ".join(f"{count:,} {outcome.replace('_', ' ')}" for outcome, count in report.counts.items()))
    else:
        print_json({**report.counts, "others": report.others})
    raise typer.Exit(1 if selection.job_ids and report.others else 0)

"""`worker dead`: list, show, replay and purge dead letters."""

import sys
from collections import Counter
from collections.abc import Iterable
from typing import Annotated, Any

import typer

from worker.commands.common import (
    AsJson,
    Servers,
    console,
    errors,
    for_people,
    print_json,
    settings_from,
    stop,
    table,
    with_servers,
)
from worker.commands.dead_format import columns, letter_json, payload_json, row, show_letter
from worker.commands.dead_selection import All, Code, Filters, Ids, Job, OlderThan, Selection, parse_id, progress_bar
from worker.database.session import create_sessions
from worker.engine.replay import Replayed
from worker.engine.replay import replay as replay_letters
from worker.queue.dead_letters import DeadLetter, DeadLetters
from worker.views.formatting import escape

MAX_NAMED = 100
"""How many of the skipped letters a report lists."""

app = typer.Typer(
    no_args_is_help=True,
    help="""Dead letters: jobs that failed all their attempts or could not be read, kept whole.

Ids are printed, and accepted, as text: a byte that is not printable is `\\x` and two hexadecimal digits.""",
)


@app.command(name="list")
def list_letters(
    *,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="The most letters to show.")] = 50,
    job: Job = None,
    code: Code = None,
    older_than: OlderThan = None,
    as_json: AsJson = False,
) -> None:
    """List dead letters, newest first. In a pipe, one JSON object per line."""
    settings = settings_from()
    filters = Filters(job, code, older_than)

    async def read(servers: Servers) -> list[DeadLetter]:
        found: list[DeadLetter] = []
        async for letters in DeadLetters(servers.redis, settings.queue).pages(filters.min_age, newest_first=True):
            found += filter(filters.match, letters)
            if len(found) > limit:
                break
        return found

    letters = with_servers(settings, read)
    if not for_people(as_json=as_json):
        for letter in letters[:limit]:
            print_json(letter_json(letter))
        return
    rows = table(*columns(), padding=(0, 1))
    for letter in letters[:limit]:
        rows.add_row(*row(letter))
    console().print(rows if letters else "no dead letters")
    if len(letters) > limit:
        errors.print(f"only the newest {limit} are listed: --limit shows more")


@app.command()
def show(
    job_id: Annotated[str, typer.Argument(metavar="ID", help="The id, as `list` shows it.")],
    *,
    payload: Annotated[bool, typer.Option("--payload", help="Show the bytes of the payload, with all values.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show one dead letter: why the job died, and the fields of its payload without their values."""
    settings = settings_from()
    wanted = parse_id(job_id)

    async def read(servers: Servers) -> tuple[DeadLetter, dict[str, Any] | None] | None:
        letters = DeadLetters(servers.redis, settings.queue)
        if (letter := await letters.find(wanted)) is None:
            return None
        kept = await letters.payload(wanted, settings.max_payload_bytes)
        return letter, None if kept is None else payload_json(kept, raw=payload)

    if (found := with_servers(settings, read)) is None:
        stop(f"no dead letter has the id {escape(wanted)}: `worker dead list` shows the ids", code=1)
    letter, kept = found
    if for_people(as_json=as_json):
        show_letter(letter, kept)
    else:
        print_json({**letter_json(letter), "payload": kept})


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
    """Put dead letters back into the queue under their own ids, with a fresh count of attempts.

    A job whose effect is committed by now is answered from the ledger and does not run again. Exits with 1 when an id
    that was given was not replayed.
    """
    settings = settings_from()
    selection = Selection.of(ids, Filters(job, code, older_than), every=every)

    async def act(servers: Servers) -> "Report":
        letters, sessions = DeadLetters(servers.redis, settings.queue), create_sessions(servers.engine)
        report = Report(outcome.name.lower() for outcome in Replayed)
        with progress_bar("replaying") as bar:
            async for page, _ in selection.pages(letters, bar):
                outcomes = await replay_letters(servers.redis, settings.queue, sessions, page)
                for job_id, outcome in zip(page, outcomes, strict=True):
                    report.add(job_id, outcome.name.lower(), done=outcome is Replayed.REPLAYED)
        return report

    _print_report(with_servers(settings, act), selection, as_json=as_json)


@app.command()
def purge(
    ids: Ids = None,
    *,
    every: All = False,
    job: Job = None,
    code: Code = None,
    older_than: OlderThan = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete dead letters and their payloads for good. Exits with 1 when an id that was given has no letter."""
    settings = settings_from()
    selection = Selection.of(ids, Filters(job, code, older_than), every=every or older_than is not None)
    if not yes:
        _confirm(selection)

    async def act(servers: Servers) -> "Report":
        letters = DeadLetters(servers.redis, settings.queue)
        report = Report(("purged", "not_found"))
        with progress_bar("purging") as bar:
            async for page, until_ms in selection.pages(letters, bar):
                for job_id, purged in zip(page, await letters.purge(page, until_ms=until_ms), strict=True):
                    report.add(job_id, "purged" if purged else "not_found", done=purged)
        return report

    _print_report(with_servers(settings, act), selection, as_json=as_json)


class Report:
    """How many letters had each result, and the first of those that were skipped."""

    def __init__(self, outcomes: Iterable[str]) -> None:
        self.counts = Counter(dict.fromkeys(outcomes, 0))
        self.skipped: dict[str, str] = {}

    def add(self, job_id: bytes, outcome: str, *, done: bool) -> None:
        """Count one letter by its outcome, and keep the ids of the first ones that were not `done`."""
        self.counts[outcome] += 1
        if not done and len(self.skipped) < MAX_NAMED:
            self.skipped[escape(job_id)] = outcome


def _confirm(selection: Selection) -> None:
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        stop("purged letters are gone for good, and without a terminal there is no confirmation: add --yes")
    count = len(selection.job_ids)
    which = f"{count} dead letter{'s' * (count != 1)}" if count else "all dead letters that match the filters"
    typer.confirm(f"Delete {which}, payloads included, for good?", abort=True, err=True)


def _print_report(report: Report, selection: Selection, *, as_json: bool) -> None:
    if for_people(as_json=as_json):
        output = console(soft_wrap=True)
        for job_id, outcome in report.skipped.items():
            output.print(f"{outcome.replace('_', ' ')}: {job_id}")
        output.print(", ".join(f"{count:,} {outcome.replace('_', ' ')}" for outcome, count in report.counts.items()))
    else:
        print_json({**report.counts, "skipped": report.skipped})
    raise typer.Exit(1 if selection.job_ids and report.skipped else 0)

"""The command that loads a file."""

import asyncio
import os
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Annotated, BinaryIO

import typer

from producers._redis import ANSWER_TIMEOUT_SECONDS, close_redis, connect
from producers._sender import Sender
from producers.cli import options
from producers.cli.load import Load, Naming, Stopped
from producers.cli.output import Exit, Failure, error_console
from producers.cli.records import BadLine, Format, HeaderError, Lines, Record, read
from producers.cli.report import Refusals, print_summary, progress_bar
from producers.errors import RedisRefused

STDIN = "-"
_SUFFIXES = {".jsonl": Format.JSONL, ".ndjson": Format.JSONL, ".json": Format.JSONL, ".csv": Format.CSV}

HELP = """\
Enqueue the jobs of a file: JSON Lines or CSV, any number of them, in the order of the file.

JSON Lines: one object per line, with "job", the fields of its message, and optionally "idempotency_key", \
"ordering_key" and "defer_by" (seconds).

CSV: a header row: "job", field names (those of "changes" too) and the same options. An empty cell is a field left out.

A bad line is reported by its number, never by its content; the other lines are still enqueued. \
With --idempotency-prefix the load can be repeated: each line is accepted once."""

EXAMPLES = r"""Examples:

{"job":"create_post","author_id":7,"title":"On engines","content":"They weave."}

{"job":"update_user","user_id":42,"changes":{"is_active":false},"defer_by":60}

python -m producers load jobs.jsonl --dry-run

python -m producers load jobs.jsonl --idempotency-prefix import-7 --errors refused.jsonl

zcat users.csv.gz | python -m producers load - --format csv"""


def load(
    file: Annotated[str, typer.Argument(metavar="FILE", help="The file; - is standard input.", show_default=False)],
    *,
    form: Annotated[
        Format | None,
        typer.Option("--format", help="Default: by the suffix of the file; JSON Lines for standard input."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check all lines and send none.")] = False,
    errors: Annotated[
        Path | None,
        typer.Option("--errors", metavar="FILE", help="Write the numbers and problems of the bad lines to this file."),
    ] = None,
    idempotency_prefix: Annotated[
        str | None, typer.Option(metavar="PREFIX", help="Give each line the idempotency key PREFIX-<line number>.")
    ] = None,
    from_line: Annotated[int, typer.Option(metavar="N", min=1, help="Skip the lines before this one.")] = 1,
    redis_url: options.RedisUrl = None,
    queue: options.Queue = options.DEFAULT_QUEUE,
    timeout: options.Timeout = options.TIMEOUT_SECONDS,
) -> None:
    """See `HELP`."""
    try:
        naming = Naming.of(idempotency_prefix)
    except ValueError as error:
        raise Failure(f"--idempotency-prefix: {error}", Exit.USAGE) from None
    settings = _Settings(
        form=form or _by_suffix(file),
        naming=naming,
        from_line=from_line,
        redis_url=None if dry_run else options.redis_url(redis_url),
        queue=queue,
        timeout_seconds=options.timeout_seconds(timeout),
    )
    with ExitStack() as stack:
        try:
            source = sys.stdin.buffer if file == STDIN else stack.enter_context(Path(file).open("rb"))
            if errors is not None and file != STDIN and errors.exists() and errors.samefile(file):
                raise Failure("--errors must not be the input file: choose another one", Exit.USAGE)
            kept = None if errors is None else stack.enter_context(errors.open("w", encoding="utf-8"))
            raise typer.Exit(_load(source, settings, kept))
        except OSError as error:
            raise Failure(f"{error.filename or file}: {error.strerror}", Exit.USAGE) from None


@dataclass(frozen=True, slots=True)
class _Settings:
    form: Format
    naming: Naming
    from_line: int
    redis_url: str | None
    """None: only check the lines."""
    queue: str
    timeout_seconds: float


def _by_suffix(file: str) -> Format:
    suffix = Path(file).suffix.lower()
    if file != STDIN and suffix not in _SUFFIXES:
        raise Failure(f"FILE must end in {' or '.join(_SUFFIXES)}; otherwise pass --format jsonl or csv", Exit.USAGE)
    return _SUFFIXES.get(suffix, Format.JSONL)


def _load(source: BinaryIO, settings: _Settings, kept: IO[str] | None) -> Exit:
    console = error_console()
    lines = Lines(source)
    refusals = Refusals(console, kept)
    with progress_bar(console, lines, _size(source)) as progress:
        load = Load(naming=settings.naming, refuse=refusals.add)
        began = time.monotonic()
        failure = _run(load, _from(settings.from_line, read(lines, settings.form)), settings, progress)
        seconds = max(time.monotonic() - began, 0.001)
    refusals.end()
    prefix, dry_run = settings.naming.prefix, settings.redis_url is None
    print_summary(load, prefix=prefix, dry_run=dry_run, seconds=seconds, finished=failure is None)
    if failure is not None:
        raise failure
    return Exit.REFUSED if load.refused else Exit.OK


def _run(
    load: Load, records: Iterator[Record | BadLine], settings: _Settings, progress: Callable[[], None]
) -> Failure | None:
    """Load the records. Returns why the load stopped early, if it did."""
    resume = (
        f"lines from {{line}} on may be missing from the queue: run the same load again with "
        f"--idempotency-prefix {settings.naming.prefix}, and each line is accepted once"
    )
    try:
        asyncio.run(_send(load, records, settings, progress))
    except HeaderError as error:
        raise Failure(str(error), Exit.USAGE) from None
    except Stopped as stopped:
        code = Exit.REFUSED if isinstance(stopped.__cause__, RedisRefused) else Exit.UNKNOWN
        return Failure(f"{options.sentence(stopped.__cause__)}; {resume.format(line=load.next_line)}", code)
    except KeyboardInterrupt:
        return Failure(f"interrupted; {resume.format(line=load.next_line)}", Exit.INTERRUPTED)
    return None


async def _send(
    load: Load, records: Iterator[Record | BadLine], settings: _Settings, progress: Callable[[], None]
) -> None:
    if settings.redis_url is None:
        await load.run(records, sender=None, progress=progress)
        return
    try:
        redis = connect(
            settings.redis_url,
            queue=settings.queue,
            answer_timeout_seconds=min(ANSWER_TIMEOUT_SECONDS, settings.timeout_seconds),
        )
    except ValueError as error:
        raise Failure(str(error), Exit.USAGE) from None
    try:
        sender = Sender(redis, settings.queue, max_queued=0, timeout_seconds=settings.timeout_seconds)
        await load.run(records, sender=sender, progress=progress)
    finally:
        await close_redis(redis)


def _from(line: int, records: Iterator[Record | BadLine]) -> Iterator[Record | BadLine]:
    return (record for record in records if record.line >= line)


def _size(source: BinaryIO) -> int | None:
    """The number of bytes to read; None if it is unknown."""
    status = os.fstat(source.fileno())
    return status.st_size if stat.S_ISREG(status.st_mode) else None

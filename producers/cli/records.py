"""What a file asks for: records of JSON Lines or CSV, and the lines that are none."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pydantic_core import from_json

from producers.cli.fields import all_names, nest
from producers.cli.lines import LONGEST_LINE_BYTES, Lines
from producers.messages import MESSAGES

JOB = "job"
OPTIONS = ("idempotency_key", "ordering_key", "defer_by")
"""The names beside the fields of the message, in both formats."""

_TOO_LONG = f"longer than {LONGEST_LINE_BYTES} bytes"
_NOT_UTF8 = "not UTF-8"


class Format(StrEnum):
    """How a file is written."""

    JSONL = "jsonl"
    CSV = "csv"


@dataclass(frozen=True, slots=True)
class Record:
    """One job of a file, not validated yet."""

    line: int
    job: str
    fields: dict[str, Any]
    options: dict[str, Any]


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that is not accepted, and why; without any value of it."""

    line: int
    problems: tuple[str, ...]


class HeaderError(Exception):
    """The header of a CSV file names no columns that can be read."""


def read(lines: Lines, form: Format) -> Iterator[Record | BadLine]:
    """The records of a file, in order.

    Raises:
        HeaderError: for the first line of CSV.
    """
    return _read_jsonl(lines) if form is Format.JSONL else _read_csv(lines)


def _read_jsonl(lines: Lines) -> Iterator[Record | BadLine]:
    for number, line in lines:
        if line is None:
            yield BadLine(number, (_TOO_LONG,))
        elif line.strip():
            yield _json_record(number, line)


def _json_record(number: int, line: bytes) -> Record | BadLine:
    try:
        line.decode()
    except UnicodeDecodeError:
        return BadLine(number, (_NOT_UTF8,))
    try:
        fields = from_json(line)
    except ValueError as error:
        return BadLine(number, (f"not JSON: {error}",))
    if not isinstance(fields, dict):
        return BadLine(number, ("not a JSON object",))
    options = {name: fields.pop(name) for name in OPTIONS if name in fields}
    job = fields.pop(JOB, None)
    if not isinstance(job, str) or job not in MESSAGES:
        return BadLine(number, (_unknown_job(),))
    return Record(number, job, fields, options)


def _read_csv(lines: Lines) -> Iterator[Record | BadLine]:
    feed = _Feed(lines)
    # Strict: what is not quoted as it should be is refused, not guessed at.
    reader = csv.reader(feed, strict=True)
    header: list[str] | None = None
    while True:
        feed.begin()
        try:
            row = next(reader)
        except StopIteration:
            return
        except (csv.Error, _TooLong) as error:
            if header is None:
                raise HeaderError(f"the header is not CSV: {error}") from None
            until = f" (up to line {feed.last}: is a quote missing?)" if feed.last > feed.first else ""
            yield BadLine(feed.first, (f"not CSV: {error}{until}",))
            continue
        if not row:
            continue
        if header is None:
            header = _header(row)
        else:
            yield _csv_record(feed.first, header, row)


class _TooLong(Exception):
    def __init__(self) -> None:
        super().__init__(_TOO_LONG)


class _Feed:
    """The lines of CSV as its reader takes them. A quoted cell may hold line breaks, so a record is bounded as well."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines
        self._size = 0
        self.first = self.last = 0

    def begin(self) -> None:
        """The next line is the first of a record."""
        self.first = self._size = 0

    def __iter__(self) -> "_Feed":
        return self

    def __next__(self) -> str:
        self.last, line = next(self._lines)
        self.first = self.first or self.last
        self._size += 0 if line is None else len(line)
        if line is None or self._size > LONGEST_LINE_BYTES:
            raise _TooLong
        # Refused later: the cells of the record must be told apart first, or the lines after it could not be read.
        return line.decode(errors="surrogateescape")


def _header(row: list[str]) -> list[str]:
    names = [cell.strip() for cell in row]
    known = [JOB, *all_names(), *OPTIONS]
    for position, name in enumerate(names, start=1):
        if name not in known:
            # Not quoted: without a header this is somebody's data.
            raise HeaderError(f"column {position} is not one of {', '.join(known)}")
        if names.index(name) != position - 1:
            raise HeaderError(f"column {position} repeats {name}")
    if JOB not in names:
        raise HeaderError(f"no column is called {JOB}")
    return names


def _csv_record(number: int, header: list[str], row: list[str]) -> Record | BadLine:
    if len(row) != len(header):
        return BadLine(number, (f"{len(row)} cells, but the header has {len(header)}",))
    cells = {name: cell for name, cell in zip(header, row, strict=True) if cell != ""}
    if any(not cell.isascii() and _has_surrogates(cell) for cell in row):
        return BadLine(number, (_NOT_UTF8,))
    message = MESSAGES.get(cells.pop(JOB, ""))
    if message is None:
        return BadLine(number, (_unknown_job(),))
    options: dict[str, Any] = {name: cells.pop(name) for name in OPTIONS if name in cells}
    if "defer_by" in options:
        try:
            options["defer_by"] = float(options["defer_by"])
        except ValueError:
            return BadLine(number, ("defer_by: input should be a valid number",))
    return Record(number, message.job, nest(message, cells), options)


def _has_surrogates(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


def _unknown_job() -> str:
    return f"{JOB}: must be one of {', '.join(MESSAGES)}"

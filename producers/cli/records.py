"""The records of a file of JSON Lines or CSV of any size, and its bad lines, read in bounded memory."""

import csv
from codecs import BOM_UTF8
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, BinaryIO

from pydantic_core import from_json

from producers.cli.fields import all_names, nest
from producers.messages import MESSAGES

JOB = "job"
OPTIONS = ("idempotency_key", "ordering_key", "defer_by")
"""The names of options, which both formats have in addition to the fields of the message."""

MAX_LINE_BYTES = 1024 * 1024
"""The largest message fits, even if every character of it is escaped."""

_TOO_LONG = f"longer than {MAX_LINE_BYTES} bytes"
_NOT_UTF8 = "not UTF-8"


class Lines:
    """The lines of a file with their numbers, from 1, in bounded memory. None stands for a line that is too long."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._number = 0
        self.bytes_read = 0

    def __iter__(self) -> Iterator[tuple[int, bytes | None]]:
        return self

    def __next__(self) -> tuple[int, bytes | None]:
        line = self._readline()
        if not line:
            raise StopIteration
        self._number += 1
        if len(line) <= MAX_LINE_BYTES or line.endswith(b"\n"):
            # Spreadsheets write a byte order mark before the first line.
            return self._number, line.removeprefix(BOM_UTF8) if self._number == 1 else line
        while (rest := self._readline()) and not rest.endswith(b"\n"):
            pass
        return self._number, None

    def _readline(self) -> bytes:
        read = self._file.readline(MAX_LINE_BYTES + 1)
        self.bytes_read += len(read)
        return read


class Format(StrEnum):
    """The format of a file."""

    JSONL = "jsonl"
    CSV = "csv"


@dataclass(frozen=True, slots=True)
class Record:
    """A job in a file, not validated yet."""

    line: int
    job: str
    fields: dict[str, Any]
    options: dict[str, Any]


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that cannot be enqueued, and why, without any of its values."""

    line: int
    problems: tuple[str, ...]


class HeaderError(Exception):
    """The header of a CSV file is wrong, so none of its lines can be read."""


def read(lines: Lines, form: Format) -> Iterator[Record | BadLine]:
    """The records and bad lines of a file, in order.

    Raises:
        HeaderError: the first line of a CSV file is wrong.
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
    # Strict: wrong quoting is refused, not guessed at.
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
    """The lines for the CSV reader. A quoted cell may hold line breaks, so whole records are limited in size."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines
        self._size = 0
        self.first = self.last = 0

    def begin(self) -> None:
        """The next line begins a record."""
        self.first = self._size = 0

    def __iter__(self) -> "_Feed":
        return self

    def __next__(self) -> str:
        self.last, line = next(self._lines)
        self.first = self.first or self.last
        self._size += 0 if line is None else len(line)
        if line is None or self._size > MAX_LINE_BYTES:
            raise _TooLong
        # Bad bytes are refused later: the reader must find the end of the record first.
        return line.decode(errors="surrogateescape")


def _header(row: list[str]) -> list[str]:
    names = [cell.strip() for cell in row]
    known = [JOB, *all_names(), *OPTIONS]
    for position, name in enumerate(names, start=1):
        if name not in known:
            # The name is not shown: in a file without a header it is a value.
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

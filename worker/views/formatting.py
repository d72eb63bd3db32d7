"""Times, durations, counts, ids and text of unknown origin, formatted for people."""

import os
import re
from dataclasses import dataclass
from datetime import datetime, tzinfo

MAX_TEXT = 300
MAX_ID_BYTES = 1024
"""Longer than any id a producer accepts. A longer one is truncated and cannot be acted on from a page."""

_ESCAPE = re.compile(rb"\\(?:x([0-9a-fA-F]{2})|(\\))|\\")


def format_text(text: object) -> str:
    r"""Text of unknown origin on one line: truncated, and without control characters.

    >>> format_text("a\x1b[31m\u202eb"), len(format_text("x" * 10_000))
    ('a�[31m�b', 301)
    """
    line = "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in str(text)[: MAX_TEXT + 1]
    )
    return line if len(line) <= MAX_TEXT else line[:MAX_TEXT] + "…"


def format_id(job_id: bytes) -> str:
    r"""An id as printable ASCII, truncated when it is longer than any valid id.

    >>> format_id(b"import-7@user:42"), format_id(b"<b>\xff"), len(format_id(b"x" * 10**6))
    ('import-7@user:42', '<b>\\xff', 301)
    """
    return escape(job_id) if len(job_id) <= MAX_ID_BYTES else escape(job_id[:MAX_TEXT])[:MAX_TEXT] + "…"


def escape(data: bytes) -> str:
    r"""Bytes as printable ASCII without spaces. A valid job id stays as it is.

    >>> escape(b"import-7@user:42"), escape(b"a b\n"), escape(b"C:\\"), escape(b"\xff")
    ('import-7@user:42', 'a\\x20b\\x0a', 'C:\\\\', '\\xff')

    A leading dash is escaped, because a command would take it for an option:

    >>> escape(b"--all")
    '\\x2d-all'
    """
    text = "".join(_escape_byte(byte) for byte in data)
    return "\\x2d" + text[1:] if text.startswith("-") else text


def unescape(text: str) -> bytes:
    r"""The bytes that `escape` was given. Text typed on a command line is encoded as it is.

    >>> unescape(escape(bytes(range(256)))) == bytes(range(256))
    True
    >>> unescape("zoë")
    b'zo\xc3\xab'

    Raises:
        ValueError: for a backslash that escapes nothing.
    """

    def replace(match: re.Match[bytes]) -> bytes:
        if match[1] is not None:
            return bytes.fromhex(match[1].decode())
        if match[2] is not None:
            return b"\\"
        raise ValueError(r"write a backslash as \\, and any other byte as \x and two hexadecimal digits")

    # As the shell passed it: arguments need not be valid text.
    return _ESCAPE.sub(replace, os.fsencode(text))


def _escape_byte(byte: int) -> str:
    if byte == ord("\\"):
        return "\\\\"
    return chr(byte) if ord("!") <= byte <= ord("~") else f"\\x{byte:02x}"


def format_duration(seconds: float | None) -> str:
    """A duration in at most two units.

    >>> [format_duration(seconds) for seconds in (0.0042, 0.25, 4.24, 200, 9000, 1e6, None)]
    ['4 ms', '250 ms', '4.2 s', '3 min 20 s', '2 h 30 min', '11 d 13 h', '–']
    """
    if seconds is None:
        return "–"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 10:  # noqa: PLR2004
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for unit, size, smaller, part in (("d", 86_400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            rest = whole % size // part
            return f"{whole // size:,} {unit}" + (f" {rest} {smaller}" if rest else "")
    return f"{whole} s"


def format_count(number: float | None) -> str:
    """A number of jobs.

    >>> format_count(12345), format_count(None)
    ('12,345', '–')
    """
    return "–" if number is None else f"{number:,.0f}"


def format_rate(per_second: float | None) -> str:
    """Jobs per second.

    >>> [format_rate(rate) for rate in (0.0, 0.25, 12.34, 1234.5, None)]
    ['0', '0.25', '12.3', '1,234', '–']
    """
    if per_second is None:
        return "–"
    if per_second in {0, round(per_second)} or per_second >= 100:  # noqa: PLR2004
        return f"{per_second:,.0f}"
    return f"{per_second:.2f}" if per_second < 10 else f"{per_second:.1f}"  # noqa: PLR2004


@dataclass(frozen=True, slots=True)
class Timestamp:
    """A time for machines, for people, and relative to now."""

    iso: str
    text: str
    ago: str


def format_timestamp(ms: float | None, zone: tzinfo, now_ms: float) -> Timestamp | None:
    """Unix milliseconds in a time zone; None when they are no date.

    >>> from datetime import UTC
    >>> format_timestamp(1_700_000_000_000, UTC, 1_700_000_200_000)
    Timestamp(iso='2023-11-14T22:13:20.000+00:00', text='2023-11-14 22:13:20', ago='3 min 20 s ago')
    >>> format_timestamp(float("nan"), UTC, 0) is None
    True
    """
    if ms is None:
        return None
    try:
        at = datetime.fromtimestamp(ms / 1000, zone)
    except (ValueError, OverflowError, OSError):
        return None  # any client can write any number to Redis
    age = (now_ms - ms) / 1000
    ago = f"{format_duration(age)} ago" if age >= 1 else f"in {format_duration(-age)}" if age <= -1 else "now"
    return Timestamp(at.isoformat(timespec="milliseconds"), f"{at:%Y-%m-%d %H:%M:%S}", ago)

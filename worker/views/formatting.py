"""How times, spans, counts and other people's text are written on the pages."""

from dataclasses import dataclass
from datetime import datetime, tzinfo

from worker.views.escaped import escape

LONGEST_TEXT = 300
LONGEST_ID = 1024
"""A longer id is no job's: it is shown cut, and nothing can be done to it from here."""


def shown(text: object) -> str:
    r"""Other people's text on one line, cut, without characters that do something.

    >>> shown("a\x1b[31m\u202eb"), len(shown("x" * 10_000))
    ('a�[31m�b', 301)
    """
    line = "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}"
        for character in str(text)[: LONGEST_TEXT + 1]
    )
    return line if len(line) <= LONGEST_TEXT else line[:LONGEST_TEXT] + "…"


def id_text(job_id: bytes) -> str:
    r"""An id as printable ASCII, cut when it is no id that anybody would have given.

    >>> id_text(b"import-7@user:42"), id_text(b"<b>\xff"), len(id_text(b"x" * 10**6))
    ('import-7@user:42', '<b>\\xff', 301)
    """
    return escape(job_id) if len(job_id) <= LONGEST_ID else escape(job_id[:LONGEST_TEXT])[:LONGEST_TEXT] + "…"


def span(seconds: float | None) -> str:
    """How long, in words, as exactly as one wants to know.

    >>> span(0.0042), span(0.25), span(4.24), span(200), span(9000), span(1e6), span(None)
    ('4 ms', '250 ms', '4.2 s', '3 min 20 s', '2 h 30 min', '11 d 13 h', '–')
    """
    if seconds is None:
        return "–"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 10:  # noqa: PLR2004
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for unit, size, below, part in (("d", 86_400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            rest = whole % size // part
            return f"{whole // size:,} {unit}" + (f" {rest} {below}" if rest else "")
    return f"{whole} s"


def count(number: float | None) -> str:
    """A number of jobs.

    >>> count(12345), count(None)
    ('12,345', '–')
    """
    return "–" if number is None else f"{number:,.0f}"


def rate(per_second: float | None) -> str:
    """Jobs a second.

    >>> rate(0.0), rate(0.25), rate(12.34), rate(1234.5), rate(None)
    ('0', '0.25', '12.3', '1,234', '–')
    """
    if per_second is None:
        return "–"
    if per_second in {0, round(per_second)} or per_second >= 100:  # noqa: PLR2004
        return f"{per_second:,.0f}"
    return f"{per_second:.2f}" if per_second < 10 else f"{per_second:.1f}"  # noqa: PLR2004


@dataclass(frozen=True, slots=True)
class Moment:
    """A time for machines, for people, and as they speak of it."""

    iso: str
    text: str
    ago: str


def moment(ms: float | None, zone: tzinfo, now_ms: float) -> Moment | None:
    """A time of the Unix clock in a time zone; None when it is none.

    >>> from datetime import UTC
    >>> moment(1_700_000_000_000, UTC, 1_700_000_200_000)
    Moment(iso='2023-11-14T22:13:20.000+00:00', text='2023-11-14 22:13:20', ago='3 min 20 s ago')
    >>> moment(float("nan"), UTC, 0) is None
    True
    """
    if ms is None:
        return None
    try:
        at = datetime.fromtimestamp(ms / 1000, zone)
    except (ValueError, OverflowError, OSError):
        return None  # somebody else's number
    away = (now_ms - ms) / 1000
    ago = f"{span(away)} ago" if away >= 1 else f"in {span(-away)}" if away <= -1 else "now"
    return Moment(at.isoformat(timespec="milliseconds"), f"{at:%Y-%m-%d %H:%M:%S}", ago)

"""Job ids: their form, and making one.

A job id is `[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}`, optionally followed by `@` and an ordering key of the same form.
The key is part of the id, so every language can set it and every log shows it.
"""

import re

from uuid_utils import uuid7

_PART = r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}"
_PART_PATTERN = re.compile(_PART)
_JOB_ID = re.compile(f"({_PART})(?:@({_PART}))?")

MAX_JOB_ID_LENGTH = 128 + 1 + 128
JOB_ID_FORM = f"{_PART}, optionally followed by @ and an ordering key of the same form"


def new_id() -> str:
    """A new id without an ordering key: a UUID version 7 in hexadecimal, so that ids sort by time."""
    return uuid7().hex


_UUID7_IN_HEX = re.compile(r"[0-9a-f]{12}7[0-9a-f]{3}[89ab][0-9a-f]{15}")


def made_ms(job_id: str) -> int | None:
    """Creation time of an id made by `new_id`, in Unix milliseconds by the creator's clock; None for any other id.

    >>> made_ms("018bcfe5680070009000000000000000@user:42"), made_ms("import-7")
    (1700000000000, None)
    """
    base = job_id[:32]
    if len(job_id) > len(base) and job_id[32] != "@":
        return None
    return int(base[:12], 16) if _UUID7_IN_HEX.fullmatch(base) else None


def job_id(base: str, ordering_key: str | None) -> str:
    """Join an id part and an ordering key.

    >>> job_id("import-7", "user:42")
    'import-7@user:42'
    >>> job_id("import-7", None)
    'import-7'

    Raises:
        ValueError: a part has an invalid character or length.
    """
    for name, part in (("idempotency key", base), ("ordering key", ordering_key)):
        if part is not None and _PART_PATTERN.fullmatch(part) is None:
            raise ValueError(f"{name} must match {_PART}")
    return base if ordering_key is None else f"{base}@{ordering_key}"


def is_job_id(text: str) -> bool:
    """Whether a text has the form of a job id.

    >>> is_job_id("a.b:c-d_e@user:42"), is_job_id("a b"), is_job_id("a@"), is_job_id("")
    (True, False, False, False)
    """
    return _JOB_ID.fullmatch(text) is not None


def ordering_key_of(job_id: str) -> str | None:
    """The ordering key in a job id, or None.

    >>> ordering_key_of("import-7@user:42"), ordering_key_of("import-7")
    ('user:42', None)
    """
    return job_id.partition("@")[2] or None

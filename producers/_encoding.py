"""What is sent for one job: a message with its options, and their encoded form."""

import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Generic, NamedTuple, TypedDict, TypeVar

from pydantic import ValidationError

from producers import ids, wire
from producers.errors import InvalidMessage
from producers.messages import Message, Reply, problems

MAX_DELAY_SECONDS = 100 * 365 * 24 * 60 * 60
"""The longest delay: more is a mistake in a unit, and the clients of other languages could not say when that is."""

M = TypeVar("M", bound=Message[Any])
ReplyT = TypeVar("ReplyT", bound=Reply)


class Options(TypedDict, total=False):
    """What may be said of any job beside its message."""

    idempotency_key: str | None
    """Makes the job's id, so that the same call repeated is accepted once. Default: a fresh UUIDv7."""
    ordering_key: str | None
    """Jobs with one key run one at a time, in order. Default: the message's own (`user:<id>`, `post:<id>`, or none)."""
    defer_by: float | timedelta | None
    """Run it no sooner than this long (seconds) from now, by Redis's clock."""
    defer_until: datetime | None
    """Run it no sooner than this time (with a time zone)."""


def build(message: type[M], fields: dict[str, Any]) -> M:
    """Validate the fields of a message; a value of None stands for "left out".

    Raises:
        InvalidMessage: with one line for each problem.
    """
    try:
        return message.model_validate({name: value for name, value in fields.items() if value is not None})
    except ValidationError as error:
        raise InvalidMessage(message.job, problems(error)) from None


@dataclass(frozen=True, slots=True)
class Request(Generic[ReplyT]):
    """A message with its options, ready to be sent.

    Raises:
        ValueError: for an option that cannot be: both `defer_by` and `defer_until`, a time without a zone, a
            negative delay, one of more than a hundred years, or a key of a form that is not allowed.
    """

    message: Message[ReplyT]
    idempotency_key: str | None = None
    ordering_key: str | None = None
    defer_by: float | timedelta | None = None
    defer_until: datetime | None = None

    def __post_init__(self) -> None:
        # Here and not when it is sent, so that none of many jobs is refused after others were accepted.
        if self.idempotency_key is not None or self.ordering_key is not None:
            ids.job_id("none" if self.idempotency_key is None else self.idempotency_key, self.ordering_key)
        if self.defer_by is not None:
            if self.defer_until is not None:
                raise ValueError("give defer_by or defer_until, not both")
            if not 0 <= self._delay_seconds <= MAX_DELAY_SECONDS:  # NaN is not, either
                raise ValueError(f"defer_by must be from 0 to {MAX_DELAY_SECONDS} seconds")
        if self.defer_until is not None:
            if self.defer_until.tzinfo is None:
                raise ValueError("defer_until needs a time zone: datetime.now(UTC) + …")
            if self.due_ms > (time.time() + MAX_DELAY_SECONDS) * 1000:
                raise ValueError(f"defer_until must be within {MAX_DELAY_SECONDS} seconds from now")

    @property
    def delay_ms(self) -> int:
        """How long from now, in milliseconds of Redis's clock; 0 when it is not delayed."""
        return round(self._delay_seconds * 1000)

    @property
    def _delay_seconds(self) -> float:
        return self.defer_by.total_seconds() if isinstance(self.defer_by, timedelta) else self.defer_by or 0

    @property
    def due_ms(self) -> int:
        """The time of the Unix clock in milliseconds; 0 when none was given."""
        return round(self.defer_until.timestamp() * 1000) if self.defer_until else 0

    def encode(self, headers: bytes = b"") -> "Encoded":
        """Give the job its id and its bytes; `headers` as `wire.headers_json` gives them."""
        fields = wire.fields_json(self.message)
        ordering_key = self.message.ordering_key if self.ordering_key is None else self.ordering_key
        base = ids.new_id() if self.idempotency_key is None else self.idempotency_key
        job_id = base if ordering_key is None else ids.job_id(base, ordering_key)
        return Encoded(
            job_id,
            _payload(self.message, fields, headers),
            0 if self.defer_by is None else self.delay_ms,
            0 if self.defer_until is None else self.due_ms,
            self.idempotency_key,
            # The ordering key is a part of the id, so one idempotency key with two of them would be two jobs.
            "" if self.idempotency_key is None else wire.digest(self.message.job, fields).hex() + job_id[len(base) :],
            self.message.reply_type(),
        )


def encode(message: Message[Any], headers: bytes = b"") -> "Encoded":
    """A job without options, as most are: what its `Request` would give, for half of what that takes."""
    job_id, ordering_key = ids.new_id(), message.ordering_key
    if ordering_key is not None:
        job_id = ids.job_id(job_id, ordering_key)
    payload = _payload(message, wire.fields_json(message), headers)
    return Encoded(job_id, payload, 0, 0, None, "", message.reply_type())


def _payload(message: Message[Any], fields: bytes, headers: bytes) -> bytes:
    return wire.encode(message.job, fields, enqueue_time_ms=time.time_ns() // 1_000_000, headers=headers)


class Encoded(NamedTuple):
    """A job as the enqueue script takes it."""

    job_id: str
    payload: bytes
    delay_ms: int
    due_ms: int
    idempotency_key: str | None
    digest: str
    """What its idempotency key stands for: the content and the ordering key; empty without an idempotency key."""
    reply: type[Reply]

"""A message with its options, and its encoded form, which is sent to Redis."""

import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Generic, NamedTuple, TypedDict, TypeVar

from pydantic import ValidationError

from producers import ids, wire
from producers.errors import InvalidMessage
from producers.messages import Message, Reply, problems

MAX_DELAY_SECONDS = 100 * 365 * 24 * 60 * 60
"""A longer delay is most likely a mistake in a unit, and beyond the times that other languages can represent."""

M = TypeVar("M", bound=Message[Any])
ReplyT = TypeVar("ReplyT", bound=Reply)


class Options(TypedDict, total=False):
    """The options of every job."""

    idempotency_key: str | None
    """The first part of the job's id: the same call repeated is accepted once. Default: a new UUIDv7."""
    ordering_key: str | None
    """Jobs with one key run one at a time, in order. Default: the message's own (`user:<id>`, `post:<id>`, or none)."""
    defer_by: float | timedelta | None
    """Delay the job by at least this long (seconds or timedelta), by Redis's clock."""
    defer_until: datetime | None
    """Run it no earlier than this time (with a time zone)."""


def build(message: type[M], fields: dict[str, Any]) -> M:
    """Validate the fields of a message. None means "left out".

    Raises:
        InvalidMessage: it has one line per problem.
    """
    try:
        return message.model_validate({name: value for name, value in fields.items() if value is not None})
    except ValidationError as error:
        raise InvalidMessage(message.job, problems(error)) from None


@dataclass(frozen=True, slots=True)
class Request(Generic[ReplyT]):
    """A message with its options.

    Raises:
        ValueError: both `defer_by` and `defer_until` are given, a time has no zone, a delay is negative or longer than
            a hundred years, or a key has an invalid form.
    """

    message: Message[ReplyT]
    idempotency_key: str | None = None
    ordering_key: str | None = None
    defer_by: float | timedelta | None = None
    defer_until: datetime | None = None

    def __post_init__(self) -> None:
        # Checked before anything is sent, so that no job is refused after others were accepted.
        if self.idempotency_key is not None or self.ordering_key is not None:
            ids.job_id("none" if self.idempotency_key is None else self.idempotency_key, self.ordering_key)
        if self.defer_by is not None:
            if self.defer_until is not None:
                raise ValueError("give defer_by or defer_until, not both")
            if not 0 <= self._delay_seconds <= MAX_DELAY_SECONDS:  # false for NaN, too
                raise ValueError(f"defer_by must be from 0 to {MAX_DELAY_SECONDS} seconds")
        if self.defer_until is not None:
            if self.defer_until.tzinfo is None:
                raise ValueError("defer_until needs a time zone: datetime.now(UTC) + …")
            if self.due_ms > (time.time() + MAX_DELAY_SECONDS) * 1000:
                raise ValueError(f"defer_until must be within {MAX_DELAY_SECONDS} seconds from now")

    @property
    def delay_ms(self) -> int:
        """How long from now, in milliseconds of Redis's clock; 0: not delayed."""
        return round(self._delay_seconds * 1000)

    @property
    def _delay_seconds(self) -> float:
        return self.defer_by.total_seconds() if isinstance(self.defer_by, timedelta) else self.defer_by or 0

    @property
    def due_ms(self) -> int:
        """The time of the Unix clock in milliseconds; 0: none was given."""
        return round(self.defer_until.timestamp() * 1000) if self.defer_until else 0

    def encode(self, headers: bytes = b"") -> "Encoded":
        """The job with its id and its bytes; `headers` as returned by `wire.headers_json`."""
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
            # The digest includes the ordering key: otherwise one idempotency key with two ordering keys would be
            # accepted as two jobs.
            "" if self.idempotency_key is None else wire.digest(self.message.job, fields).hex() + job_id[len(base) :],
            self.message.reply_type(),
        )


def encode(message: Message[Any], headers: bytes = b"") -> "Encoded":
    """The same as `Request(message).encode(headers)` in half the time, for a job without options."""
    job_id, ordering_key = ids.new_id(), message.ordering_key
    if ordering_key is not None:
        job_id = ids.job_id(job_id, ordering_key)
    payload = _payload(message, wire.fields_json(message), headers)
    return Encoded(job_id, payload, 0, 0, None, "", message.reply_type())


def _payload(message: Message[Any], fields: bytes, headers: bytes) -> bytes:
    return wire.encode(message.job, fields, enqueue_time_ms=time.time_ns() // 1_000_000, headers=headers)


class Encoded(NamedTuple):
    """A job as an argument of the enqueue script."""

    job_id: str
    payload: bytes
    delay_ms: int
    due_ms: int
    idempotency_key: str | None
    digest: str
    """Of the content, with the ordering key; empty without an idempotency key."""
    reply: type[Reply]

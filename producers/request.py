"""What is sent for one job: a message with its options, and their encoded form."""

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, TypedDict, TypeVar

from pydantic import ValidationError

from producers import ids, wire
from producers.errors import InvalidMessage
from producers.messages import Message, Reply, problems

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
            negative delay, or a key of a form that is not allowed.
    """

    message: Message[ReplyT]
    idempotency_key: str | None = None
    ordering_key: str | None = None
    defer_by: float | timedelta | None = None
    defer_until: datetime | None = None

    def __post_init__(self) -> None:
        if self.defer_by is not None and self.defer_until is not None:
            raise ValueError("give defer_by or defer_until, not both")
        if self.defer_until is not None and self.defer_until.tzinfo is None:
            raise ValueError("defer_until needs a time zone: datetime.now(UTC) + …")
        if self.delay_ms < 0:
            raise ValueError("defer_by must not be negative")

    @property
    def delay_ms(self) -> int:
        """How long from now, in milliseconds of Redis's clock; 0 when it is not delayed."""
        seconds = self.defer_by.total_seconds() if isinstance(self.defer_by, timedelta) else self.defer_by or 0
        return round(seconds * 1000)

    @property
    def due_ms(self) -> int:
        """The time of the Unix clock in milliseconds; 0 when none was given."""
        return round(self.defer_until.astimezone(UTC).timestamp() * 1000) if self.defer_until else 0

    def encode(self, headers: dict[str, str] | None = None) -> "Encoded":
        """Give the job its id and its bytes."""
        fields = wire.fields_json(self.message)
        job = self.message.job
        return Encoded(
            job_id=ids.job_id(self.idempotency_key or ids.new_id(), self.ordering_key or self.message.ordering_key),
            payload=wire.encode(job, fields, enqueue_time_ms=time.time_ns() // 1_000_000, headers=headers),
            delay_ms=self.delay_ms,
            due_ms=self.due_ms,
            idempotency_key=self.idempotency_key,
            digest=wire.digest(job, fields).hex() if self.idempotency_key is not None else "",
            reply=self.message.reply_type(),
        )


@dataclass(frozen=True, slots=True)
class Encoded:
    """A job as the enqueue script takes it."""

    job_id: str
    payload: bytes
    delay_ms: int
    due_ms: int
    idempotency_key: str | None
    digest: str
    reply: type[Reply]

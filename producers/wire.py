"""Jobs and results as bytes: arq's envelopes in JSON.

Nothing here unpickles, and no error holds a value that was read.
"""

import hashlib
from collections.abc import Callable
from functools import lru_cache
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import to_json

from producers.errors import JobError, job_error
from producers.messages import Message, problems

CONTRACT_VERSION: Final = 1
DIGEST_BYTES = 16

# The latest time of Python's datetime (year 9999) in milliseconds: arq converts times without a check.
_MAX_TIME_MS = 253_402_300_799_999

Time = Annotated[int, Field(ge=0, le=_MAX_TIME_MS)]
Header = Annotated[str, Field(max_length=512)]


class Envelope(BaseModel):
    """A job's payload: arq's envelope, with a contract version and headers, which other clients may leave out."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)

    f: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_.:-]{0,127}$")]
    """The name of the job type."""
    k: dict[str, Any]
    """The fields of the message."""
    a: Annotated[list[Any], Field(max_length=0)]
    """Positional arguments: always empty, because fields have names."""
    t: Annotated[int, Field(ge=1, le=1_000_000)] | None
    """The number of the first attempt, or null."""
    et: Time
    """When the client enqueued it, in milliseconds of the Unix clock."""
    v: Literal[1] = CONTRACT_VERSION
    """The version of the contract."""
    h: Annotated[dict[Annotated[str, Field(max_length=64)], Header], Field(max_length=16, default_factory=dict)]
    """Headers: `traceparent`, `producer`."""


class Result(BaseModel):
    """A job's outcome: arq's result object. `r` is the reply of a done job, otherwise a code and a detail."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True, hide_input_in_errors=True)

    f: str
    k: dict[str, Any]
    a: list[Any]
    t: int
    et: Time
    s: bool
    r: Any
    st: Time
    ft: Time
    q: str = "<unknown>"
    id: str = "<unknown>"

    @property
    def error(self) -> JobError | None:
        """The outcome as an error, or None when the job is done."""
        if self.s:
            return None
        failure = self.r if isinstance(self.r, dict) else {}
        return job_error(str(failure.get("code", "failed")), str(failure.get("detail", "no detail")), self.id)


_ENVELOPE = TypeAdapter(Envelope)
_RESULT = TypeAdapter(Result)
T = TypeVar("T")


class WireError(ValueError):
    """Bytes that are not an envelope of this contract. The text names the problem, without any value."""


class TooLargeError(WireError):
    """A payload over the size limit. It was not read."""


def fields_json(message: Message[Any]) -> bytes:
    """The fields of a message in canonical form: compact JSON in the order of the model.

    >>> from producers.messages import UpdateUser, UserChanges
    >>> fields_json(UpdateUser(user_id=42, changes=UserChanges(is_active=False)))
    b'{"user_id":42,"changes":{"is_active":false}}'
    """
    # No field of the contract may be null, so None always means "left out".
    # `model_dump_json` calls this, and then decodes the bytes to a string.
    return message.__pydantic_serializer__.to_json(message, exclude_none=True)


def digest(job: str, fields: bytes) -> bytes:
    """The digest of a job's content, `DIGEST_BYTES` long. Jobs with one id must have the same.

    >>> digest("delete_user", b'{"user_id":1}').hex()
    '335c6dd944dac039f49956966a1f2e74'
    """
    return hashlib.blake2b(job.encode() + b"\n" + fields, digest_size=DIGEST_BYTES).digest()


def encode(job: str, fields: bytes, *, enqueue_time_ms: int, headers: bytes = b"") -> bytes:
    """A job's payload; `headers` as returned by `headers_json`.

    >>> encode("delete_user", b'{"user_id":1}', enqueue_time_ms=1700000000000)
    b'{"f":"delete_user","k":{"user_id":1},"a":[],"t":null,"et":1700000000000,"v":1}'
    """
    # The fields are JSON already: encoding them twice would cost more than everything else here.
    return b'{"f":%s,"k":%s,"a":[],"t":null,"et":%d,"v":%d%s}' % (
        _quoted(job), fields, enqueue_time_ms, CONTRACT_VERSION, b',"h":' + headers if headers else b"",
    )  # fmt: skip


def headers_json(headers: dict[str, str]) -> bytes:
    """Headers as JSON. A producer encodes them once, because they are the same for all its jobs.

    >>> headers_json({"producer": "web"})
    b'{"producer":"web"}'
    """
    return to_json(headers)


@lru_cache(maxsize=256)
def _quoted(name: str) -> bytes:
    return to_json(name)


def decode(payload: bytes) -> Envelope:
    """Read a job's payload.

    Raises:
        WireError: it is not JSON, or not an envelope of this contract.
    """
    return _validated(_ENVELOPE.validate_json, payload)


def decode_result(data: bytes) -> Result:
    """Read a job's result.

    Raises:
        WireError: it is not JSON, or not a result of this contract.
    """
    return _validated(_RESULT.validate_json, data)


def validate_result(parsed: dict[str, Any]) -> Result:
    """Read a job's result from parsed JSON.

    Raises:
        WireError: it is not a result of this contract.
    """
    return _validated(_RESULT.validate_python, parsed)


def encode_result(
    *,
    job_id: str,
    job: str,
    attempt: int,
    queue: str,
    done: bool,
    reply: bytes,
    enqueued_ms: int,
    started_ms: int,
    ended_ms: int,
) -> bytes:
    """A job's result: `reply` is JSON, either the reply or `{"code": …, "detail": …}`.

    The fields of the message are left out: they may hold what no reply shows.
    """
    return b'{"t":%d,"f":%s,"a":[],"k":{},"et":%d,"s":%s,"r":%s,"st":%d,"ft":%d,"q":%s,"id":%s}' % (
        attempt, _quoted(job), enqueued_ms, b"true" if done else b"false", reply, started_ms, ended_ms, _quoted(queue),
        to_json(job_id),
    )  # fmt: skip


def _validated(validate: Callable[[Any], T], data: object) -> T:
    try:
        return validate(data)
    except ValidationError as error:
        raise WireError("not an envelope of this contract: " + "; ".join(problems(error))) from None

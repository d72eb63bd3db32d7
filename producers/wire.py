"""Messages as bytes and back: arq's envelopes in JSON.

`dumps` and `loads` are what arq calls `job_serializer` and `job_deserializer`; stock arq clients and workers pass
them to speak this wire. Nothing here unpickles, and no error holds a value that was read.
"""

import asyncio
import hashlib
from collections.abc import Callable
from functools import lru_cache
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import from_json, to_json

from producers.errors import CANCELLED, JobError, job_error
from producers.messages import Message, problems

CONTRACT_VERSION: Final = 1
DIGEST_BYTES = 16

# The largest time that Python's datetime holds (year 9999), in milliseconds: arq computes with it unguarded.
_MAX_TIME_MS = 253_402_300_799_999

Time = Annotated[int, Field(ge=0, le=_MAX_TIME_MS)]
Header = Annotated[str, Field(max_length=512)]


class Envelope(BaseModel):
    """A job's payload: arq's envelope, with a contract version and headers that other clients may leave out."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)

    f: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_.:-]{0,127}$")]
    """The name of the job."""
    k: dict[str, Any]
    """The fields of the message."""
    a: Annotated[list[Any], Field(max_length=0)]
    """Positional arguments: always empty, the fields have names."""
    t: Annotated[int, Field(ge=1, le=1_000_000)] | None
    """The number of the first try, or null."""
    et: Time
    """When the client enqueued it, in milliseconds of the Unix clock."""
    v: Literal[1] = CONTRACT_VERSION
    """The version of the contract."""
    h: Annotated[dict[Annotated[str, Field(max_length=64)], Header], Field(max_length=16, default_factory=dict)]
    """Headers: `traceparent`, `producer`."""


class Result(BaseModel):
    """A job's outcome: arq's result object. `r` is the reply, or what a job that was not done says of it."""

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
        said = self.r if isinstance(self.r, dict) else {}
        return job_error(str(said.get("code", "failed")), str(said.get("detail", "no detail")), self.id)


_ENVELOPE = TypeAdapter(Envelope)
_RESULT = TypeAdapter(Result)
T = TypeVar("T")


class WireError(ValueError):
    """Bytes that are no envelope of this contract. The text says what is wrong, without any value."""


class TooLargeError(WireError):
    """A payload over the limit; it was not read."""


def fields_json(message: Message[Any]) -> bytes:
    """The fields of a message in their one canonical form: compact JSON in the order of the model.

    >>> from producers.messages import UpdateUser, UserChanges
    >>> fields_json(UpdateUser(user_id=42, changes=UserChanges(is_active=False)))
    b'{"user_id":42,"changes":{"is_active":false}}'
    """
    # No field of the contract may be null, so None is always "left out".
    # What `model_dump_json` calls, without the way through a text.
    return message.__pydantic_serializer__.to_json(message, exclude_none=True)


def digest(job: str, fields: bytes) -> bytes:
    """The fingerprint of a job's content, `DIGEST_BYTES` long: two jobs with one id must share it.

    >>> digest("delete_user", b'{"user_id":1}').hex()
    '335c6dd944dac039f49956966a1f2e74'
    """
    return hashlib.blake2b(job.encode() + b"\n" + fields, digest_size=DIGEST_BYTES).digest()


def encode(job: str, fields: bytes, *, enqueue_time_ms: int, headers: bytes = b"") -> bytes:
    """A job's payload; `headers` as `headers_json` gives them.

    >>> encode("delete_user", b'{"user_id":1}', enqueue_time_ms=1700000000000)
    b'{"f":"delete_user","k":{"user_id":1},"a":[],"t":null,"et":1700000000000,"v":1}'
    """
    # The fields are JSON already; encoding them twice would cost more than all the rest.
    return b'{"f":%s,"k":%s,"a":[],"t":null,"et":%d,"v":%d%s}' % (
        _quoted(job), fields, enqueue_time_ms, CONTRACT_VERSION, b',"h":' + headers if headers else b"",
    )  # fmt: skip


def headers_json(headers: dict[str, str]) -> bytes:
    """Headers as a payload has them. Those of one producer are the same for all its jobs, so it makes them once.

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
        WireError: when it is not JSON, or not an envelope of this contract.
    """
    return _validated(_ENVELOPE.validate_json, payload)


def decode_result(data: bytes) -> Result:
    """Read a job's result.

    Raises:
        WireError: when it is not JSON, or not a result of this contract.
    """
    return _validated(_RESULT.validate_json, data)


def encode_result(
    *,
    job_id: str,
    job: str,
    tries: int,
    queue: str,
    done: bool,
    reply: bytes,
    enqueued_ms: int,
    started_ms: int,
    ended_ms: int,
) -> bytes:
    """A job's result, arq's result object: `reply` is JSON, the reply or `{"code": …, "detail": …}`.

    The fields of the message are left out: they hold what no reply may show.
    """
    return b'{"t":%d,"f":%s,"a":[],"k":{},"et":%d,"s":%s,"r":%s,"st":%d,"ft":%d,"q":%s,"id":%s}' % (
        tries, _quoted(job), enqueued_ms, b"true" if done else b"false", reply, started_ms, ended_ms, _quoted(queue),
        to_json(job_id),
    )  # fmt: skip


def dumps(envelope: dict[str, Any]) -> bytes:
    """arq's `job_serializer`: a job's envelope or a job's result as JSON.

    A result is written without the job's arguments, for they hold what no reply may show, and an outcome other than
    done as `{"code": …, "detail": …}`.
    """
    if "r" in envelope:
        envelope = {**envelope, "a": [], "k": {}}
        if not envelope["s"]:
            envelope["r"] = _failure(envelope["r"])
    else:
        envelope = {**envelope, "v": CONTRACT_VERSION}
    return to_json(envelope)


def loads(data: bytes) -> dict[str, Any]:
    """arq's `job_deserializer`: a job's envelope or a job's result from JSON.

    The outcome of a job that was not done becomes the exception that arq's `Job.result` then raises.

    Raises:
        WireError: when the bytes are neither.
    """
    # Only a result has an "r" at its top: looking at the bytes first spares parsing payloads twice.
    if b'"r":' in data and isinstance(parsed := _parse(data), dict) and "r" in parsed:
        result = _validated(_RESULT.validate_python, parsed)
        as_arq = result.model_dump()
        if (error := result.error) is not None:
            as_arq["r"] = asyncio.CancelledError() if error.code == CANCELLED else error
        return as_arq
    job = decode(data)
    return {"f": job.f, "k": job.k, "a": job.a, "t": job.t, "et": job.et}


def _parse(data: bytes) -> Any:
    try:
        return from_json(data)
    except ValueError:
        raise WireError("not JSON") from None


def _validated(validate: Callable[[Any], T], data: object) -> T:
    try:
        return validate(data)
    except ValidationError as error:
        raise WireError("not an envelope of this contract: " + "; ".join(problems(error))) from None


def _failure(error: object) -> dict[str, str]:
    """What a result says of a job that was not done.

    arq itself gives up some jobs before any code of ours runs; its words are matched here and nowhere else.
    """
    if isinstance(error, JobError):
        return {"code": error.code, "detail": error.detail}
    if isinstance(error, asyncio.CancelledError):
        return {"code": CANCELLED, "detail": "the job was cancelled"}
    text = str(error)
    if isinstance(error, BaseException) and isinstance(error.__cause__, WireError):
        code = "too_large" if isinstance(error.__cause__, TooLargeError) else "undecodable"
        return {"code": code, "detail": str(error.__cause__)}
    if text == "job expired":
        return {"code": "expired", "detail": "the payload was gone before the job's turn came"}
    if text.startswith("function ") and text.endswith(" not found"):
        return {"code": "unknown_job", "detail": "no job of this name is known here"}
    if text.startswith("max ") and text.endswith(" retries exceeded"):
        return {"code": "crashed", "detail": "the job took its worker down on every try"}
    if isinstance(error, TimeoutError):
        return {"code": "timeout", "detail": "the job ran for longer than it may"}
    return {"code": "failed", "detail": f"the job failed with {type(error).__name__}"}

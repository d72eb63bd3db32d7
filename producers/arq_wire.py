"""Serializers for stock arq: pass `dumps` as `job_serializer` and `loads` as `job_deserializer`."""

import asyncio
from typing import Any

from pydantic_core import from_json, to_json

from producers.errors import CANCELLED, DETAILS, JobError
from producers.wire import CONTRACT_VERSION, TooLargeError, WireError, decode, validate_result


def dumps(envelope: dict[str, Any]) -> bytes:
    """Serialize arq's dict of a job or of a result as JSON.

    A result is written without the job's arguments, which may hold what no reply shows. An outcome other than done
    becomes `{"code": …, "detail": …}`.
    """
    if "r" in envelope:
        envelope = {**envelope, "a": [], "k": {}}
        if not envelope["s"]:
            envelope["r"] = _failure(envelope["r"])
    else:
        envelope = {**envelope, "v": CONTRACT_VERSION}
    return to_json(envelope)


def loads(data: bytes) -> dict[str, Any]:
    """Read JSON as arq's dict of a job or of a result.

    An outcome other than done becomes the exception that arq's `Job.result` raises.

    Raises:
        WireError: the bytes are neither a job nor a result.
    """
    # Only a result has a top-level "r". Checking the bytes first avoids parsing payloads twice.
    if b'"r":' in data and isinstance(parsed := _parse(data), dict) and "r" in parsed:
        result = validate_result(parsed)
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


def _failure(error: object) -> dict[str, str]:
    """The `r` of a result other than done.

    arq itself ends some jobs before any code of this project runs. Its texts are matched here and nowhere else.
    """
    if isinstance(error, JobError):
        return {"code": error.code, "detail": error.detail}
    if isinstance(error, BaseException) and isinstance(error.__cause__, WireError):
        code = "too_large" if isinstance(error.__cause__, TooLargeError) else "undecodable"
        return {"code": code, "detail": str(error.__cause__)}
    code = _code(error, str(error))
    detail = f"the job failed with {type(error).__name__}" if code == "failed" else DETAILS[code]
    return {"code": code, "detail": detail}


def _code(error: object, text: str) -> str:
    if isinstance(error, asyncio.CancelledError):
        return CANCELLED
    if text == "job expired":
        return "expired"
    if text.startswith("function ") and text.endswith(" not found"):
        return "unknown_job"
    if text.startswith("max ") and text.endswith(" retries exceeded"):
        return "crashed"
    return "timeout" if isinstance(error, TimeoutError) else "failed"

"""A job as a report for people: its state, its events in order, and the fields of its payload without their values."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json

from producers import ids
from producers.job_status import JobStatus
from worker.views.formatting import format_duration, format_id, format_text
from worker.views.job_records import JobRecords
from worker.views.payload_summary import summarize_payload, summarize_reply

_HEADLINES = {
    JobStatus.DONE: "Its effect is committed.",
    JobStatus.CANCELLED: "Cancelled. It had no effect.",
    JobStatus.UNKNOWN: "Neither Redis nor the ledger has it. It was never accepted, or its records have expired.",
}


@dataclass(frozen=True, slots=True)
class Step:
    """An event in the life of a job, past or expected. `kind` selects its colour."""

    title: str
    at_ms: float | None
    detail: str = ""
    kind: str = ""


@dataclass(frozen=True, slots=True)
class JobReport:
    """What `worker job` and the page of a job show."""

    status: JobStatus
    headline: str
    job: str | None
    attempts: int | None
    steps: list[Step]
    payload: dict[str, Any] | None
    reply: dict[str, str]


def build_report(records: JobRecords) -> JobReport:
    """Describe a job from what Redis and the ledger hold of it."""
    payload = _payload(records)
    result, death = records.result, records.letter.record if records.letter else None
    names = (
        records.recorded.job if records.recorded else None,
        payload.get("job") if payload else None,
        death.job if death else None,
        result.f if result else None,
    )
    attempts = (records.attempts, death.attempts if death else None, result.t if result else None)
    return JobReport(
        status=records.status,
        headline=_headline(records),
        job=next((name for name in names if name), None),
        attempts=next((number for number in attempts if number is not None), None),
        steps=sorted(_steps(records, payload), key=lambda step: step.at_ms or records.now_ms),
        payload=payload,
        reply=_reply(records),
    )


def _headline(records: JobRecords) -> str:
    if (text := _HEADLINES.get(records.status)) is not None:
        return text
    duration = format_duration(abs((records.score or 0) - records.now_ms) / 1000)
    match records.status:
        case JobStatus.DUE:
            return f"Due for {duration}. The next free worker claims it."
        case JobStatus.DEFERRED if records.attempts:
            return f"The last attempt failed. The next one is due in {duration}."
        case JobStatus.DEFERRED:
            return f"Due in {duration}."
        case JobStatus.PARKED:
            return _parked_headline(records)
        case JobStatus.REJECTED:
            return f"Rejected: {_reason(records)}. The request cannot be honoured; this is not a fault."
        case JobStatus.DEAD:
            kept = "Kept as a dead letter" if records.letter else "Its dead letter is gone"
            return f"Dead: {_reason(records)}. {kept}."
        case _:
            lease = format_duration((records.lease_ms or 0) / 1000)
            return f"Claimed by a worker. The lease expires in {lease} unless it is renewed."


def _parked_headline(records: JobRecords) -> str:
    order = records.order
    if order is None or order.holder is None:
        return "Parked behind another job with the same ordering key."
    ahead = f", with {order.ahead:,} more ahead of it" if order.ahead else ""
    return f"Parked behind {format_id(order.holder)}{ahead}. Jobs with the same ordering key run in order."


def _reason(records: JobRecords) -> str:
    error = records.result.error if records.result else None
    causes = (records.recorded, records.letter.record if records.letter else None, error)
    return next((format_text(f"{each.code}, {each.detail}") for each in causes if each and each.code), "reason unknown")


def _steps(records: JobRecords, payload: dict[str, Any] | None) -> Iterator[Step]:
    if (enqueued_ms := _enqueued_ms(records, payload)) is not None:
        yield Step("Enqueued", enqueued_ms, "by the producer's clock")
    yield from _steps_in_queue(records)
    if (result := records.result) is not None:
        yield Step("Last attempt started", result.st, f"attempt {result.t}" if result.t else "")
        ttl_ms = records.result_ttl_ms
        kept = "" if ttl_ms is None else f"result kept for {format_duration(ttl_ms / 1000)}"
        title = "Done" if result.error is None else format_text(f"Ended: {result.error.code}")
        yield Step(title, result.ft, kept, "good" if result.s else "bad")
    if records.result_error is not None:
        yield Step("Unreadable result", None, records.result_error, "bad")
    if records.recorded is not None and records.recorded_at is not None:
        outcome = records.recorded.outcome
        kind = "good" if outcome == "done" else "bad"
        detail = f"outcome: {outcome}" + (", until it is replayed" if outcome == "dead" else "")
        yield Step("Recorded in the ledger", records.recorded_at.timestamp() * 1000, detail, kind)
    if records.letter is not None:
        worker = records.letter.record.worker
        by = f"by {format_text(worker)}" if worker else ""
        yield Step("Buried as a dead letter", records.letter.died_ms, by, "bad")


def _steps_in_queue(records: JobRecords) -> Iterator[Step]:
    if records.score is None:
        return
    match records.status:
        case JobStatus.PARKED:
            place = records.order.own_ms if records.order else None
            yield Step("Parked", place, "returns to this position when its turn comes", "wait")
        case JobStatus.CLAIMED:
            yield Step(f"Claimed for attempt {records.attempts or 1}", None, "a worker holds the lease", "live")
            yield Step("Lease expires", records.score, "unless it is renewed", "wait")
        case JobStatus.DEFERRED if records.attempts:
            yield Step("Next attempt", records.score, f"attempts so far: {records.attempts}", "wait")
        case _:
            yield Step("Due", records.score, "", "wait")
    if records.cancel_requested:
        yield Step("Cancellation requested", None, "carried out by the worker that holds it, or by the next", "wait")


def _enqueued_ms(records: JobRecords, payload: dict[str, Any] | None) -> float | None:
    times = (
        payload.get("enqueued_ms") if payload else None,
        records.letter.record.enqueued_ms if records.letter else None,
        records.result.et if records.result else None,
        ids.made_ms(records.job_id.decode("ascii", "replace")),
    )
    return next((ms for ms in times if ms), None)


def _payload(records: JobRecords) -> dict[str, Any] | None:
    kept = records.payload
    if kept is None:
        return None
    summary: dict[str, Any] = {"bytes": kept.size_bytes, "type": kept.kind, "error": None, "fields": {}, "headers": []}
    if kept.size_bytes is None:
        return summary | {"error": f"the key has the type {kept.kind}, not string"}
    if kept.data is None:
        return summary | {"error": "larger than WORKER_MAX_PAYLOAD_BYTES, so it is not read"}
    found = summarize_payload(kept.data)
    return summary | ({"error": found["undecodable"]} if "undecodable" in found else found)


def _reply(records: JobRecords) -> dict[str, str]:
    if records.result is not None and records.result.s:
        return summarize_reply(records.result.f, records.result.r)
    if records.recorded is not None and records.recorded.reply is not None:
        try:
            return summarize_reply(records.recorded.job, from_json(records.recorded.reply))
        except ValueError:
            return {}  # truncated when it was read
    return {}

"""A job as a report for people: its state, its events in order, and the fields of its payload without their values."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json

from producers import ids
from worker.queue.inspect import State, Story
from worker.views.formatting import format_duration, format_id, format_text
from worker.views.payload_summary import summarize_payload, summarize_reply

_HEADLINES = {
    State.DONE: "Its effect is committed.",
    State.CANCELLED: "Cancelled. It had no effect.",
    State.UNKNOWN: "Neither Redis nor the ledger has it. It was never accepted, or its records have expired.",
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

    state: State
    headline: str
    job: str | None
    attempts: int | None
    steps: list[Step]
    payload: dict[str, Any] | None
    reply: dict[str, str]


def build_report(snapshot: Story) -> JobReport:
    """Describe a job from what Redis and the ledger hold of it."""
    payload = _payload(snapshot)
    result, death = snapshot.result, snapshot.letter.record if snapshot.letter else None
    names = (
        snapshot.recorded.job if snapshot.recorded else None,
        payload.get("job") if payload else None,
        death.job if death else None,
        result.f if result else None,
    )
    attempts = (snapshot.tries, death.attempts if death else None, result.t if result else None)
    return JobReport(
        state=snapshot.state,
        headline=_headline(snapshot),
        job=next((name for name in names if name), None),
        attempts=next((number for number in attempts if number is not None), None),
        steps=sorted(_steps(snapshot, payload), key=lambda step: step.at_ms or snapshot.now_ms),
        payload=payload,
        reply=_reply(snapshot),
    )


def _headline(snapshot: Story) -> str:
    if (text := _HEADLINES.get(snapshot.state)) is not None:
        return text
    away = format_duration(abs((snapshot.score or 0) - snapshot.now_ms) / 1000)
    match snapshot.state:
        case State.DUE:
            return f"Due for {away}. The next free worker claims it."
        case State.DEFERRED:
            return f"Due in {away}."
        case State.RETRY:
            return f"The last attempt failed. The next one is due in {away}."
        case State.PARKED:
            return _parked_headline(snapshot)
        case State.REJECTED:
            return f"Rejected: {_reason(snapshot)}. The request cannot be honoured; this is not a fault."
        case State.DEAD:
            kept = "Kept as a dead letter" if snapshot.letter else "Its dead letter is gone"
            return f"Dead: {_reason(snapshot)}. {kept}."
        case _:
            lease = format_duration((snapshot.lease_ms or 0) / 1000)
            return f"Claimed by a worker. The lease expires in {lease} unless it is renewed."


def _parked_headline(snapshot: Story) -> str:
    order = snapshot.order
    if order is None or order.holder is None:
        return "Parked behind another job with the same ordering key."
    ahead = f", with {order.ahead:,} more ahead of it" if order.ahead else ""
    return f"Parked behind {format_id(order.holder)}{ahead}. Jobs with the same ordering key run in order."


def _reason(snapshot: Story) -> str:
    error = snapshot.result.error if snapshot.result else None
    causes = (snapshot.recorded, snapshot.letter.record if snapshot.letter else None, error)
    return next((format_text(f"{each.code}, {each.detail}") for each in causes if each and each.code), "reason unknown")


def _steps(snapshot: Story, payload: dict[str, Any] | None) -> Iterator[Step]:
    if (enqueued_ms := _enqueued_ms(snapshot, payload)) is not None:
        yield Step("Enqueued", enqueued_ms, "by the producer's clock")
    yield from _steps_in_queue(snapshot)
    if (result := snapshot.result) is not None:
        yield Step("Last attempt started", result.st, f"attempt {result.t}" if result.t else "")
        kept = "" if snapshot.result_ms is None else f"result kept for {format_duration(snapshot.result_ms / 1000)}"
        title = "Done" if result.error is None else format_text(f"Ended: {result.error.code}")
        yield Step(title, result.ft, kept, "good" if result.s else "bad")
    if snapshot.result_trouble is not None:
        yield Step("Unreadable result", None, snapshot.result_trouble, "bad")
    if snapshot.recorded is not None and snapshot.recorded_at is not None:
        outcome = snapshot.recorded.outcome
        kind = "good" if outcome == "done" else "bad"
        detail = f"outcome: {outcome}" + (", until it is replayed" if outcome == "dead" else "")
        yield Step("Recorded in the ledger", snapshot.recorded_at.timestamp() * 1000, detail, kind)
    if snapshot.letter is not None:
        worker = snapshot.letter.record.worker
        by = f"by {format_text(worker)}" if worker else ""
        yield Step("Buried as a dead letter", snapshot.letter.died_ms, by, "bad")


def _steps_in_queue(snapshot: Story) -> Iterator[Step]:
    if snapshot.score is None:
        return
    match snapshot.state:
        case State.PARKED:
            place = snapshot.order.own_ms if snapshot.order else None
            yield Step("Parked", place, "returns to this position when its turn comes", "wait")
        case State.CLAIMED:
            yield Step(f"Claimed for attempt {snapshot.tries or 1}", None, "a worker holds the lease", "live")
            yield Step("Lease expires", snapshot.score, "unless it is renewed", "wait")
        case State.RETRY:
            yield Step("Next attempt", snapshot.score, f"attempts so far: {snapshot.tries}", "wait")
        case _:
            yield Step("Due", snapshot.score, "", "wait")
    if snapshot.cancelling:
        yield Step("Cancellation requested", None, "carried out by the worker that holds it, or by the next", "wait")


def _enqueued_ms(snapshot: Story, payload: dict[str, Any] | None) -> float | None:
    times = (
        payload.get("enqueued_ms") if payload else None,
        snapshot.letter.record.enqueued_ms if snapshot.letter else None,
        snapshot.result.et if snapshot.result else None,
        ids.made_ms(snapshot.job_id.decode("ascii", "replace")),
    )
    return next((ms for ms in times if ms), None)


def _payload(snapshot: Story) -> dict[str, Any] | None:
    kept = snapshot.payload
    if kept is None:
        return None
    summary: dict[str, Any] = {"bytes": kept.size_bytes, "type": kept.kind, "error": None, "fields": {}, "headers": []}
    if kept.size_bytes is None:
        return summary | {"error": f"the key has the type {kept.kind}, not string"}
    if kept.data is None:
        return summary | {"error": "larger than WORKER_MAX_PAYLOAD_BYTES, so it is not read"}
    found = summarize_payload(kept.data)
    return summary | ({"error": found["undecodable"]} if "undecodable" in found else found)


def _reply(snapshot: Story) -> dict[str, str]:
    if snapshot.result is not None and snapshot.result.s:
        return summarize_reply(snapshot.result.f, snapshot.result.r)
    if snapshot.recorded is not None and snapshot.recorded.reply is not None:
        try:
            return summarize_reply(snapshot.recorded.job, from_json(snapshot.recorded.reply))
        except ValueError:
            return {}  # truncated when it was read
    return {}

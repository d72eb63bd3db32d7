"""A job's story as a person reads it: where it is, what happened when, and what its payload holds, not its values."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json

from producers import ids
from worker.queue.inspect import State, Story
from worker.views.formatting import id_text, shown, span
from worker.views.payload_summary import reply_shape, shape


@dataclass(frozen=True, slots=True)
class Step:
    """Something that happened, or will; `kind` is the name of its colour."""

    title: str
    at_ms: float | None
    detail: str = ""
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Told:
    """What the page of a job shows."""

    state: State
    headline: str
    job: str | None
    tries: int | None
    steps: list[Step]
    payload: dict[str, Any] | None
    reply: dict[str, str]


def tell(story: Story) -> Told:
    """Put a story into words."""
    payload = _payload(story)
    result, said = story.result, story.letter.record if story.letter else None
    names = (
        story.recorded.job if story.recorded else None,
        payload.get("job") if payload else None,
        said.job if said else None,
        result.f if result else None,
    )
    tries = (story.tries, said.attempts if said else None, result.t if result else None)
    return Told(
        state=story.state,
        headline=_headline(story),
        job=next((name for name in names if name), None),
        tries=next((number for number in tries if number is not None), None),
        steps=sorted(_steps(story, payload), key=lambda step: step.at_ms or story.now_ms),
        payload=payload,
        reply=_reply(story),
    )


def _headline(story: Story) -> str:
    state = story.state
    if state.ended or state in {State.DEAD, State.UNKNOWN}:
        return _end(story)
    away = span(abs((story.score or 0) - story.now_ms) / 1000)
    match state:
        case State.DUE:
            return f"It has been due for {away}; the next free worker takes it."
        case State.DEFERRED:
            return f"It will be due in {away}."
        case State.RETRY:
            return f"Its last try failed; the next begins in {away}."
        case State.PARKED:
            return _behind(story)
        case _:
            return f"A worker has it. The lease ends in {span((story.lease_ms or 0) / 1000)} unless it is renewed."


def _end(story: Story) -> str:
    match story.state:
        case State.DONE:
            return "It had its effect, once."
        case State.REJECTED:
            return f"Its request cannot be honoured: {_why(story)}. That is an answer, not a fault."
        case State.DEAD:
            kept = "It is kept as a dead letter" if story.letter else "Its dead letter is gone"
            return f"It was given up: {_why(story)}. {kept}."
        case State.CANCELLED:
            return "Somebody cancelled it; it had no effect."
        case _:
            return "Neither Redis nor the ledger knows it: it was never accepted, or long ago."


def _behind(story: Story) -> str:
    order = story.order
    if order is None or order.holder is None:
        return "It waits behind another job of its ordering key."
    ahead = f", and {order.ahead:,} parked before it" if order.ahead else ""
    return f"It waits behind {id_text(order.holder)}{ahead}: jobs of one ordering key run in order."


def _why(story: Story) -> str:
    if story.recorded and story.recorded.code:
        return shown(f"{story.recorded.code}, {story.recorded.detail}")
    if story.letter and story.letter.record.code:
        return shown(f"{story.letter.record.code}, {story.letter.record.detail}")
    error = story.result.error if story.result else None
    return shown(f"{error.code}, {error.detail}") if error else "it is not said why"


def _steps(story: Story, payload: dict[str, Any] | None) -> Iterator[Step]:
    if (accepted_ms := _accepted_ms(story, payload)) is not None:
        yield Step("Enqueued", accepted_ms, "by the clock of who enqueued it")
    yield from _steps_in_queue(story)
    if (result := story.result) is not None:
        yield Step("Its last try began", result.st, f"try {result.t}" if result.t else "")
        kept = "" if story.result_ms is None else f"the result is kept for {span(story.result_ms / 1000)} yet"
        yield Step(_ended(story), result.ft, kept, "good" if result.s else "bad")
    if story.result_trouble is not None:
        yield Step("There is a result that cannot be read", None, story.result_trouble, "bad")
    if story.recorded is not None and story.recorded_at is not None:
        outcome = story.recorded.outcome
        kind = "good" if outcome == "done" else "bad"
        detail = "until it is replayed" if outcome == "dead" else "for good"
        yield Step("Entered in the ledger", story.recorded_at.timestamp() * 1000, f"as {outcome}, {detail}", kind)
    if story.letter is not None:
        worker = story.letter.record.worker
        by = f"by {shown(worker)}" if worker else ""
        yield Step("Buried as a dead letter", story.letter.died_ms, by, "bad")


def _steps_in_queue(story: Story) -> Iterator[Step]:
    if story.score is None:
        return
    match story.state:
        case State.PARKED:
            place = story.order.own_ms if story.order else None
            yield Step("Parked", place, "at this place it will be put back", "wait")
        case State.CLAIMED:
            yield Step(f"Claimed: try {story.tries or 1}", None, "a worker has it now", "live")
            yield Step("Its lease ends", story.score, "unless it is renewed", "wait")
        case State.RETRY:
            yield Step("Its next try", story.score, f"{story.tries} begun so far", "wait")
        case _:
            yield Step("Due", story.score, "", "wait")
    if story.cancelling:
        yield Step("Somebody wants it cancelled", None, "the worker that has it, or the next, is asked to", "wait")


def _accepted_ms(story: Story, payload: dict[str, Any] | None) -> float | None:
    said = story.letter.record.enqueued_ms if story.letter else None
    seen = [payload.get("enqueued_ms") if payload else None, said, story.result.et if story.result else None]
    made = ids.made_ms(story.job_id.decode("ascii", "replace"))
    return next((ms for ms in [*seen, made] if ms), None)


def _ended(story: Story) -> str:
    error = story.result.error if story.result else None
    return "Done" if error is None else shown(f"Ended: {error.code}")


def _payload(story: Story) -> dict[str, Any] | None:
    kept = story.payload
    if kept is None:
        return None
    told: dict[str, Any] = {"bytes": kept.size_bytes, "kind": kept.kind, "trouble": None, "fields": {}, "headers": []}
    if kept.size_bytes is None:
        return told | {"trouble": f"its key is of another type: {kept.kind}"}
    if kept.data is None:
        return told | {"trouble": "it is larger than WORKER_MAX_PAYLOAD_BYTES, and is not read"}
    found = shape(kept.data)
    return told | ({"trouble": found["undecodable"]} if "undecodable" in found else found)


def _reply(story: Story) -> dict[str, str]:
    if story.result is not None and story.result.s:
        return reply_shape(story.result.f, story.result.r)
    if story.recorded is not None and story.recorded.reply is not None:
        try:
            return reply_shape(story.recorded.job, from_json(story.recorded.reply))
        except ValueError:
            return {}  # cut
    return {}

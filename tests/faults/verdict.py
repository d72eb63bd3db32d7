"""Whether a run kept the invariants, and if not which, with the history around each violation."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from producers import CreatePost, CreateUser, DeletePost, DeleteUser, UpdatePost, UpdateUser
from tests.faults import model
from tests.faults.client import Asked
from tests.faults.seen import Effect, Entered, Entry, Seen

_SHOWN = 3
_AROUND = 2


@dataclass
class Verdict:
    """What is wrong, by invariant; empty when all is well."""

    jobs: int = 0
    wrong: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    counts: Counter[str] = field(default_factory=Counter)
    deaths: list[str] = field(default_factory=list)
    """Jobs that were given up."""
    around: list[str] = field(default_factory=list)
    """The history of the jobs that something is wrong with."""

    def add(self, invariant: str, *found: str) -> None:
        """Something is wrong."""
        if found:
            self.wrong[invariant] += found
            self.counts[invariant] += len(found)

    def __str__(self) -> str:
        lines = [f"{self.jobs} jobs; " + ("" if self.wrong else "nothing wrong")]
        for name, found in sorted(self.wrong.items()):
            lines += [f"{name}: {len(found)}", *(f"    {one}" for one in found[:_SHOWN])]
        return "\n".join([*lines, *self.around])


def judge(history: Sequence[Asked], final: Sequence[str | None], seen: Seen, *, fault_free: bool = False) -> Verdict:
    """Compare what the client knows with what the database saw.

    Args:
        history: all enqueues.
        final: the outcome of each at the end, in the same order.
        seen: the records of the database.
        fault_free: nothing happened that may bring a job to a second worker while the first one has it.
    """
    verdict = Verdict(jobs=sum(asked.state != "failed" for asked in history))
    replayed = {job_id for job_id, was, becomes in seen.changes if (was, becomes) == ("dead", "gone")}
    for asked, result in zip(history, final, strict=True):
        # A dead letter that was replayed has the outcome of its second life.
        observed = None if asked.job_id in replayed else asked.observed
        _one_outcome(verdict, asked, seen.ledger.get(asked.job_id), observed, result)
    verdict.deaths = [one.job_id for one in history if _dead(seen.ledger.get(one.job_id))]
    _orders(verdict, history, seen, _effects(verdict, history, seen))
    for job_id, times in Counter(entered.job_id for entered in seen.entered).items():
        if times > 1 + sum(change == (job_id, "dead", "gone") for change in seen.changes):
            verdict.add("I2", f"entered {times} times: {job_id}")
    verdict.add("I5", *_open_at_once(history, seen))
    verdict.add(
        "I5", *(f"entered while another of its key was open: {job_id} ({who})" for job_id, who in seen.overlaps)
    )
    if seen.overlaps_seen > len(seen.overlaps):
        verdict.add("I5", f"{seen.overlaps_seen} overlaps, some of them rolled back")
    if fault_free and seen.twice_at_once:
        verdict.add("I5", f"{seen.twice_at_once} jobs begun while they ran already")
    verdict.add(
        "I6", *(f"{job}: {was} became {now}" for job, was, now in seen.changes if (was, now) != ("dead", "gone"))
    )
    verdict.add("I9", *model.contradictions(history, seen))
    verdict.around = _around(verdict, history, seen)
    return verdict


def _around(verdict: Verdict, history: Sequence[Asked], seen: Seen) -> list[str]:
    """The history of what something is wrong with."""
    names = {word.rstrip(":,") for found in verdict.wrong.values() for one in found[:_SHOWN] for word in one.split()}
    if not names:
        return []
    around = [asked for asked in history if asked.job_id in names]
    # And those that came next before and after them under their keys; of a key that is named, the last.
    keys: dict[str, list[Asked]] = defaultdict(list)
    for asked in history:
        if asked.key:
            keys[asked.key].append(asked)
    for key, jobs in keys.items():
        places = [place for place, asked in enumerate(jobs) if asked.job_id in names] or [len(jobs)] * (key in names)
        near = {at for place in places for at in range(place - _AROUND, place + _AROUND + 1)}
        around += [asked for at, asked in enumerate(jobs) if at in near and asked.job_id not in names]
    around.sort(key=lambda asked: asked.number)
    return [f"  {asked}\n    ledger: {seen.ledger.get(asked.job_id)}" for asked in around]


def _one_outcome(verdict: Verdict, asked: Asked, entry: Entry | None, observed: str | None, result: str | None) -> None:
    if asked.state == "failed" and (entry or result):
        verdict.add("I1", f"was not accepted, and has an outcome: {asked.job_id}")
    # Of one that may have been accepted there is an outcome or none, wherever one looks for it.
    if (asked.state == "ok" and entry is None) or (entry is None) != (result is None):
        verdict.add("I1", f"no outcome: {asked.job_id} (ledger {entry and entry.outcome}, result {result})")
    if observed is not None and result is not None and observed != result:
        verdict.add("I6", f"{asked.job_id}: observed {observed}, now {result}")
    if entry is not None and result is not None:
        done, reply = json.loads(result)
        if done != (entry.outcome == "done") or (done and reply != entry.reply):
            verdict.add("I6", f"{asked.job_id}: the result has {result}, the ledger {entry.outcome} {entry.reply}")


def _effects(verdict: Verdict, history: Sequence[Asked], seen: Seen) -> dict[str, int]:
    """An effect is a job's by the text in the row, which is that job's alone, or by the row that it deleted.

    Returns the place of each job's effect among all.
    """
    made: dict[tuple[str, ...], list[Effect]] = defaultdict(list)
    for effect in seen.effects:
        what = str(effect.row_id) if effect.op == "DELETE" else effect.text
        made[effect.op, effect.tbl, what].append(effect)
    entered = {(one.job_id, one.xid) for one in seen.entered}
    places: dict[str, int] = {}
    for asked in history:
        entry = seen.ledger.get(asked.job_id)
        effects = made.pop(_effect_of(asked), []) if _has_one(asked, entry) else []
        places.update((asked.job_id, effect.seq) for effect in effects)
        expected = 1 if entry is not None and entry.outcome == "done" and _has_one(asked, entry) else 0
        if len(effects) != expected:
            verdict.add("I2", f"{len(effects)} effects, must be {expected}: {asked.job_id}")
        verdict.add(
            "I3",
            *(f"without its ledger row: {asked.job_id}" for one in effects if (asked.job_id, one.xid) not in entered),
        )
    # A post that goes with its user is the effect of that user's deletion.
    users_gone = {
        (effect.xid, effect.row_id) for effect in seen.effects if (effect.op, effect.tbl) == ("DELETE", "users")
    }
    for effect in (effect for effects in made.values() for effect in effects):
        if (effect.op, effect.tbl) != ("DELETE", "posts") or (effect.xid, effect.author_id) not in users_gone:
            verdict.add("I3", f"of no job: {effect}")
    return places


def _effect_of(asked: Asked) -> tuple[str, str, str]:
    match asked.message:
        case CreateUser():
            return "INSERT", "users", asked.mark
        case CreatePost():
            return "INSERT", "posts", asked.mark
        case UpdateUser():
            return "UPDATE", "users", asked.mark
        case UpdatePost():
            return "UPDATE", "posts", asked.mark
        case DeleteUser(user_id=row_id):
            return "DELETE", "users", str(row_id)
        case DeletePost(post_id=row_id):
            return "DELETE", "posts", str(row_id)
        case _:
            raise AssertionError(asked)


def _has_one(asked: Asked, entry: Entry | None) -> bool:
    """Whether it is about rows at all: to delete what is not there is done without an effect."""
    if not isinstance(asked.message, DeleteUser | DeletePost):
        return True
    return entry is not None and entry.outcome == "done" and bool(entry.reply["deleted"])


def _order(verdict: Verdict, key: str, what: str, jobs: Sequence[Asked]) -> None:
    """Compare the order of a key's jobs, which is that of their commits, with what is known of their acceptance.

    A job was accepted by the call that it was first part of, or by a later one that repeated it, up to the one that was
    answered. So one came before another for certain when its last possible call was before the other's first. Those of
    one call were accepted at once, one after the other.
    """
    newest: Asked | None = None
    newest_of: dict[int, Asked] = {}
    for asked in jobs:
        if newest is not None and asked.accepted_by < newest.call:
            verdict.add("I4", f"{key}: {what} of {newest.job_id} before {asked.job_id}, which was accepted before it")
        if newest is None or asked.call > newest.call:
            newest = asked
        before = newest_of.setdefault(asked.call, asked)
        if before.number > asked.number:
            verdict.add("I4", f"{key}: {what} of {before.job_id} before {asked.job_id}, which came first in their call")
        else:
            newest_of[asked.call] = asked


def _orders(verdict: Verdict, history: Sequence[Asked], seen: Seen, effects: Mapping[str, int]) -> None:
    replayed = {job_id for job_id, _, becomes in seen.changes if becomes == "gone"}
    keys: dict[str, list[Asked]] = defaultdict(list)
    for asked in history:
        # A dead letter that was replayed has lost its place.
        if asked.key and asked.job_id not in replayed:
            keys[asked.key].append(asked)
    outcomes = {job_id: entry.seq for job_id, entry in seen.ledger.items() if entry.seq is not None}
    for key, jobs in keys.items():
        for what, places in (("outcome", outcomes), ("effect", effects)):
            there = [asked for asked in jobs if asked.job_id in places]
            _order(verdict, key, what, sorted(there, key=lambda asked: places[asked.job_id]))


def _open_at_once(history: Sequence[Asked], seen: Seen) -> Iterator[str]:
    """Transactions of one key that were committed, of which one began before the other had ended."""
    keys = {asked.job_id: asked.key for asked in history if asked.key}
    latest: dict[str, Entered] = {}
    for entered in sorted(seen.entered, key=lambda one: one.began):
        if (key := keys.get(entered.job_id)) is None:
            continue
        before = latest.get(key)
        if before is not None and before.xid != entered.xid and entered.began < before.committed:
            yield f"begun while {before.job_id} of its key was open: {entered.job_id}"
        if before is None or before.committed < entered.committed:
            latest[key] = entered


def _dead(entry: Entry | None) -> bool:
    return entry is not None and entry.outcome == "dead"

"""Compares the client's history with the database, and reports violated invariants with the history around each."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from producers import CreatePost, CreateUser, DeletePost, DeleteUser, UpdatePost, UpdateUser
from tests.faults import model
from tests.faults.client import JobRecord
from tests.faults.observations import Effect, LedgerInsert, LedgerRow, Observations

_SHOWN = 3
_NEIGHBOURS = 2


@dataclass
class Verdict:
    """The violations, by invariant."""

    jobs: int = 0
    violations: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    deaths: list[str] = field(default_factory=list)
    """The ids of dead jobs."""
    context: list[str] = field(default_factory=list)
    """The history of the jobs named in the violations."""

    def add(self, invariant: str, *violations: str) -> None:
        if violations:
            self.violations[invariant] += violations

    @property
    def counts(self) -> Counter[str]:
        """The number of violations of each invariant."""
        return Counter({invariant: len(found) for invariant, found in self.violations.items()})

    def __str__(self) -> str:
        lines = [f"{self.jobs} jobs; " + ("" if self.violations else "no violation")]
        for name, found in sorted(self.violations.items()):
            lines += [f"{name}: {len(found)}", *(f"    {violation}" for violation in found[:_SHOWN])]
        return "\n".join([*lines, *self.context])


def judge(
    history: Sequence[JobRecord], outcomes: Sequence[str | None], observed: Observations, *, fault_free: bool = False
) -> Verdict:
    """Check all invariants.

    Args:
        history: all enqueued jobs.
        outcomes: the final outcome of each, in the same order.
        observed: the records of the database.
        fault_free: there was no fault that may bring a job to a second worker while the first one runs it.
    """
    verdict = Verdict(jobs=sum(job.state != "failed" for job in history))
    replayed = {job_id for job_id, before, after in observed.changes if (before, after) == ("dead", "gone")}
    for job, outcome in zip(history, outcomes, strict=True):
        # A replayed dead letter has a new outcome.
        first = None if job.job_id in replayed else job.observed
        _check_outcome(verdict, job, observed.ledger.get(job.job_id), first, outcome)
    verdict.deaths = [job.job_id for job in history if _is_dead(observed.ledger.get(job.job_id))]
    _check_orders(verdict, history, observed, _check_effects(verdict, history, observed))
    for job_id, times in Counter(insert.job_id for insert in observed.inserts).items():
        if times > 1 + sum(change == (job_id, "dead", "gone") for change in observed.changes):
            verdict.add("I2", f"{times} inserts into the ledger: {job_id}")
    verdict.add("I5", *_find_overlaps(history, observed))
    verdict.add(
        "I5",
        *(f"overlaps with another job of its key: {job_id} ({holder})" for job_id, holder in observed.overlaps),
    )
    if observed.overlap_count > len(observed.overlaps):
        verdict.add("I5", f"{observed.overlap_count} overlaps, including transactions that were rolled back")
    if fault_free and observed.concurrent_attempts:
        verdict.add("I5", f"{observed.concurrent_attempts} attempts began while another of the same job was running")
    verdict.add(
        "I6",
        *(
            f"{job_id}: {before} became {after}"
            for job_id, before, after in observed.changes
            if (before, after) != ("dead", "gone")
        ),
    )
    verdict.add("I9", *model.find_contradictions(history, observed))
    if "I2" in verdict.violations:
        # Only the first ones are shown: those with the most effects or inserts.
        verdict.violations["I2"].sort(key=lambda violation: int(violation.split()[0]), reverse=True)
    verdict.context = _context(verdict, history, observed)
    return verdict


def _context(verdict: Verdict, history: Sequence[JobRecord], observed: Observations) -> list[str]:
    """The history of the jobs that violations name, and of their neighbours under the same key."""
    names = {
        word.rstrip(":,") for found in verdict.violations.values() for line in found[:_SHOWN] for word in line.split()
    }
    if not names:
        return []
    context = [job for job in history if job.job_id in names]
    keys: dict[str, list[JobRecord]] = defaultdict(list)
    for job in history:
        if job.key:
            keys[job.key].append(job)
    for key, jobs in keys.items():
        # For a key that is named itself, the last jobs.
        places = [place for place, job in enumerate(jobs) if job.job_id in names] or [len(jobs)] * (key in names)
        near = {at for place in places for at in range(place - _NEIGHBOURS, place + _NEIGHBOURS + 1)}
        context += [job for at, job in enumerate(jobs) if at in near and job.job_id not in names]
    context.sort(key=lambda job: job.number)
    return [f"  {job}\n    ledger: {observed.ledger.get(job.job_id)}" for job in context]


def _check_outcome(
    verdict: Verdict, job: JobRecord, row: LedgerRow | None, first: str | None, outcome: str | None
) -> None:
    if job.state == "failed" and (row or outcome):
        verdict.add("I1", f"was not accepted, and has an outcome: {job.job_id}")
    # A job of unknown acceptance has an outcome both in the ledger and in Redis, or in neither.
    if (job.state == "ok" and row is None) or (row is None) != (outcome is None):
        verdict.add("I1", f"no outcome: {job.job_id} (ledger {row and row.outcome}, result {outcome})")
    if first is not None and outcome is not None and first != outcome:
        verdict.add("I6", f"{job.job_id}: observed {first}, now {outcome}")
    if row is not None and outcome is not None:
        done, reply = json.loads(outcome)
        if done != (row.outcome == "done") or (done and reply != row.reply):
            verdict.add("I6", f"{job.job_id}: the result has {outcome}, the ledger {row.outcome} {row.reply}")


def _check_effects(verdict: Verdict, history: Sequence[JobRecord], observed: Observations) -> dict[str, int]:
    """Check I2 and I3; return the place of each job's effect among all effects.

    An effect belongs to the job whose unique text is in the row, or that deleted the row.
    """
    unclaimed: dict[tuple[str, ...], list[Effect]] = defaultdict(list)
    for effect in observed.effects:
        detail = str(effect.row_id) if effect.op == "DELETE" else effect.text
        unclaimed[effect.op, effect.tbl, detail].append(effect)
    inserts = {(insert.job_id, insert.xid) for insert in observed.inserts}
    places: dict[str, int] = {}
    for job in history:
        row = observed.ledger.get(job.job_id)
        effects = unclaimed.pop(_effect_of(job), []) if _has_effect(job, row) else []
        places.update((job.job_id, effect.seq) for effect in effects)
        expected = 1 if row is not None and row.outcome == "done" and _has_effect(job, row) else 0
        if len(effects) != expected:
            verdict.add("I2", f"{len(effects)} effects, must be {expected}: {job.job_id}")
        without_row = sum((job.job_id, effect.xid) not in inserts for effect in effects)
        verdict.add("I3", *[f"effect without its ledger row: {job.job_id}"] * without_row)
    # The deletion of a user also deletes the user's posts.
    deleted_users = {
        (effect.xid, effect.row_id) for effect in observed.effects if (effect.op, effect.tbl) == ("DELETE", "users")
    }
    for effect in (effect for effects in unclaimed.values() for effect in effects):
        if (effect.op, effect.tbl) != ("DELETE", "posts") or (effect.xid, effect.author_id) not in deleted_users:
            verdict.add("I3", f"effect of no job: {effect}")
    return places


def _effect_of(job: JobRecord) -> tuple[str, str, str]:
    match job.message:
        case CreateUser():
            return "INSERT", "users", job.mark
        case CreatePost():
            return "INSERT", "posts", job.mark
        case UpdateUser():
            return "UPDATE", "users", job.mark
        case UpdatePost():
            return "UPDATE", "posts", job.mark
        case DeleteUser(user_id=row_id):
            return "DELETE", "users", str(row_id)
        case DeletePost(post_id=row_id):
            return "DELETE", "posts", str(row_id)
        case _:
            raise AssertionError(job)


def _has_effect(job: JobRecord, row: LedgerRow | None) -> bool:
    """False for a job that must not have an effect: a deletion of a missing row is done without one."""
    if not isinstance(job.message, DeleteUser | DeletePost):
        return True
    return row is not None and row.outcome == "done" and bool(row.reply["deleted"])


def _check_order(verdict: Verdict, key: str, kind: str, jobs: Sequence[JobRecord]) -> None:
    """Compare the jobs of a key, in the order of their commits, with the order of their acceptance.

    A job was accepted by the call that first sent it, by the one that was answered, or by any repetition in between. It
    was surely accepted before another if its last possible call came before the other's first. The jobs of one call
    are accepted at once, in their order.
    """
    newest: JobRecord | None = None
    newest_of_call: dict[int, JobRecord] = {}
    for job in jobs:
        if newest is not None and job.accepted_by < newest.first_call:
            verdict.add("I4", f"{key}: {kind} of {newest.job_id} before {job.job_id}, which was accepted before it")
        if newest is None or job.first_call > newest.first_call:
            newest = job
        before = newest_of_call.setdefault(job.first_call, job)
        if before.number > job.number:
            verdict.add("I4", f"{key}: {kind} of {before.job_id} before {job.job_id}, which came first in their call")
        else:
            newest_of_call[job.first_call] = job


def _check_orders(
    verdict: Verdict, history: Sequence[JobRecord], observed: Observations, effects: Mapping[str, int]
) -> None:
    replayed = {job_id for job_id, _, after in observed.changes if after == "gone"}
    keys: dict[str, list[JobRecord]] = defaultdict(list)
    for job in history:
        # A replayed dead letter has lost its place.
        if job.key and job.job_id not in replayed:
            keys[job.key].append(job)
    outcomes = {job_id: row.seq for job_id, row in observed.ledger.items() if row.seq is not None}
    for key, jobs in keys.items():
        for kind, places in (("outcome", outcomes), ("effect", effects)):
            placed = [job for job in jobs if job.job_id in places]
            _check_order(verdict, key, kind, sorted(placed, key=lambda job: places[job.job_id]))


def _find_overlaps(history: Sequence[JobRecord], observed: Observations) -> Iterator[str]:
    """Committed transactions that began while another of the same key was open."""
    keys = {job.job_id: job.key for job in history if job.key}
    latest: dict[str, LedgerInsert] = {}
    for insert in sorted(observed.inserts, key=lambda insert: insert.began):
        if (key := keys.get(insert.job_id)) is None:
            continue
        before = latest.get(key)
        if before is not None and before.xid != insert.xid and insert.began < before.committed:
            yield f"began while {before.job_id} of its key was open: {insert.job_id}"
        if before is None or before.committed < insert.committed:
            latest[key] = insert


def _is_dead(row: LedgerRow | None) -> bool:
    return row is not None and row.outcome == "dead"

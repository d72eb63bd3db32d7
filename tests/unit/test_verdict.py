"""Does the oracle see what it must, and no more, in histories that are made up?"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from producers import UpdateUser, UserChanges
from tests.faults.client import JobRecord
from tests.faults.observations import Effect, LedgerInsert, LedgerRow, Observations
from tests.faults.verdict import Verdict, judge

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
HISTORY_OF = 3


def asked(number: int, *, call: int, accepted_by: int | None = None, state: str = "ok") -> JobRecord:
    mark = f"renamed-{number}"
    one = JobRecord(number, f"j{number}", UpdateUser(user_id=1, changes=UserChanges(username=mark)), mark, call)
    one.state = state  # type: ignore[assignment]
    if state == "ok":
        one.accepted_by = call if accepted_by is None else accepted_by
    return one


def verdict_on(jobs: Sequence[JobRecord], *, seconds: float = 0.5) -> Verdict:
    """Of jobs that were done in this order, one begun each second, each open for so long."""
    inserts = [
        LedgerInsert(job.job_id, str(at), NOON + timedelta(seconds=at), NOON + timedelta(seconds=at + seconds))
        for at, job in enumerate(jobs)
    ]
    user = {"id": 1, "email": "ada@example.com", "username": "ada", "is_active": True}
    observed = Observations(
        ledger={job.job_id: LedgerRow(job.job_id, "done", None, user, at) for at, job in enumerate(jobs)},
        inserts=inserts,
        effects=[Effect(at, "UPDATE", "users", 1, job.mark, None, str(at)) for at, job in enumerate(jobs)],
        changes=[],
        overlaps=[],
        overlap_count=0,
        concurrent_attempts=0,
        users={1: user},
        posts={},
    )
    return judge(sorted(jobs, key=lambda job: job.number), [None] * len(jobs), observed)


def reordered(jobs: Sequence[JobRecord]) -> bool:
    return "I4" in verdict_on(jobs).violations


def test_what_was_accepted_by_an_earlier_call_comes_first() -> None:
    first, second = asked(1, call=1), asked(2, call=2)

    assert not reordered([first, second])
    assert reordered([second, first])


def test_the_jobs_of_one_call_come_in_their_order() -> None:
    first, second = asked(1, call=1), asked(2, call=1)

    assert not reordered([first, second])
    assert reordered([second, first])


def test_of_two_that_are_not_next_to_each_other_the_order_counts_as_well() -> None:
    one, unsure, other = asked(1, call=1), asked(2, call=2, accepted_by=9), asked(3, call=3)

    assert reordered([other, unsure, one])


def test_what_was_repeated_may_have_been_accepted_by_any_of_its_calls() -> None:
    repeated, later = asked(1, call=1, accepted_by=3), asked(2, call=2)

    assert not reordered([repeated, later])
    assert not reordered([later, repeated])


def test_what_was_repeated_was_accepted_before_what_came_after_its_answer_and_after_what_came_before() -> None:
    before, repeated, after = asked(1, call=1), asked(2, call=2, accepted_by=3), asked(3, call=4)

    assert not reordered([before, repeated, after])
    assert reordered([before, after, repeated])
    assert reordered([repeated, before, after])


def test_what_was_never_answered_still_came_after_what_was_answered_before() -> None:
    before, unanswered, after = asked(1, call=1), asked(2, call=2, state="unknown"), asked(3, call=3)

    assert not reordered([before, after, unanswered])
    assert reordered([unanswered, before, after])


def test_a_transaction_that_begins_before_the_one_of_its_key_has_ended_is_seen() -> None:
    jobs = [asked(number, call=number) for number in range(1, 1 + HISTORY_OF)]

    assert "I5" not in verdict_on(jobs, seconds=1.0).violations
    assert len(verdict_on(jobs, seconds=1.5).violations["I5"]) == HISTORY_OF - 1


def test_around_a_violation_are_the_jobs_of_its_key() -> None:
    jobs = [asked(number, call=number) for number in range(1, 8)]
    jobs[3], jobs[4] = jobs[4], jobs[3]

    context = "\n".join(verdict_on(jobs).context)

    for number in range(2, 8):
        assert f"#{number} j{number}@user:1 update_user" in context

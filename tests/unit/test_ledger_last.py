"""A job's ledger row may come last only when no earlier delivery of the job is possible."""

import pytest

from producers import ids, wire
from worker.model.job import Lease, PayloadState, read_job

PAYLOAD = wire.encode("delete_user", b'{"user_id":1}', enqueue_time_ms=1)
MADE_MS = 1_700_000_000_000
AN_ID = "018bcfe5680070009000000000000000"


def ledger_last(
    job_id: str, state: PayloadState = PayloadState.FRESH, remembered_since_ms: float = MADE_MS - 1
) -> bool:
    lease = Lease(job_id.encode(), b"token", b"1")
    return read_job(lease, PAYLOAD, state, 1, remembered_since_ms=remembered_since_ms).ledger_last


def test_the_row_of_a_new_job_comes_last_when_redis_would_remember_its_end() -> None:
    assert ids.made_ms(AN_ID) == MADE_MS
    assert ledger_last(AN_ID)


def test_a_new_id_holds_the_time_it_was_made() -> None:
    assert ids.made_ms(ids.new_id()) is not None


@pytest.mark.parametrize("state", [PayloadState.FETCHED, PayloadState.CANCEL])
def test_the_row_of_a_job_that_redis_knows_comes_first(state: PayloadState) -> None:
    assert not ledger_last(AN_ID, state)


@pytest.mark.parametrize("since_ms", [MADE_MS, MADE_MS + 1])
def test_the_row_of_a_job_that_may_have_ended_before_redis_remembers_comes_first(since_ms: float) -> None:
    assert not ledger_last(AN_ID, remembered_since_ms=since_ms)


def test_the_row_of_a_job_with_an_ordering_key_comes_first() -> None:
    assert ids.made_ms(f"{AN_ID}@user:42") == MADE_MS
    assert not ledger_last(f"{AN_ID}@user:42")


@pytest.mark.parametrize(
    "job_id",
    [
        "import-7", "import-7@user:42",  # a caller's key, which may have been used at any time
        AN_ID + "0", AN_ID[:-1], AN_ID.upper(), f"{AN_ID}:2", f"2{AN_ID[1:12]}4{AN_ID[13:]}",
    ],
)  # fmt: skip
def test_the_row_of_a_job_of_unknown_age_comes_first(job_id: str) -> None:
    assert not ledger_last(job_id, remembered_since_ms=0)

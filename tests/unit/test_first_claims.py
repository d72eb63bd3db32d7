"""Which claims are known to be the first of their jobs, so that the ledger need not be asked before?"""

import pytest
from pydantic_core import to_json
from worker.engine.job import read

from producers import ids
from worker.queue.queue import Claimed, Lease, PayloadState

PAYLOAD = to_json({"f": "delete_user", "k": {"user_id": 1}, "a": [], "t": None, "et": 1})
MADE_MS = 1_700_000_000_000
AN_ID = "018bcfe5680070009000000000000000"


def first(job_id: str, *, state: PayloadState = PayloadState.FRESH, remembered_since_ms: float = MADE_MS - 1) -> bool:
    claimed = Claimed(Lease(job_id.encode(), b"token", b"1"), PAYLOAD, state, 1)
    return read(claimed, remembered_since_ms=remembered_since_ms).claim.first


def test_a_new_job_whose_end_would_be_remembered_is_tried_for_the_first_time() -> None:
    assert ids.made_ms(AN_ID) == MADE_MS
    assert first(AN_ID)


def test_what_has_an_ordering_key_begins_with_its_ledger_row() -> None:
    assert ids.made_ms(f"{AN_ID}@user:42") == MADE_MS
    assert not first(f"{AN_ID}@user:42")


@pytest.mark.parametrize("state", [PayloadState.FETCHED, PayloadState.CANCEL])
def test_what_redis_knows_is_not(state: PayloadState) -> None:
    assert not first(AN_ID, state=state)


@pytest.mark.parametrize("since_ms", [MADE_MS, MADE_MS + 1])
def test_what_may_have_ended_before_redis_remembers_is_not(since_ms: float) -> None:
    assert not first(AN_ID, remembered_since_ms=since_ms)


@pytest.mark.parametrize(
    "job_id",
    [
        "import-7", "import-7@user:42",  # a caller's key, which may have been used at any time
        AN_ID + "0", AN_ID[:-1], AN_ID.upper(), f"{AN_ID}:2", f"2{AN_ID[1:12]}4{AN_ID[13:]}",
    ],
)  # fmt: skip
def test_what_does_not_tell_when_it_was_made_is_not(job_id: str) -> None:
    assert not first(job_id, remembered_since_ms=0)


def test_new_ids_tell_when_they_were_made() -> None:
    assert ids.made_ms(ids.new_id()) is not None

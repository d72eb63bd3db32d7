"""Job ids and their form, and the checks of a request's options."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers import CreatePost, DeleteUser, Request, ids
from producers._encoding import MAX_DELAY_SECONDS

PARTS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}", fullmatch=True)
NOT_PARTS = ["", " ", "a b", "a@b", "-a", ".a", "_a", ":a", "a\n", "ä", "a" * 129, "a/b", "a\x00"]


def test_new_ids_are_valid_and_sort_by_age() -> None:
    made = [ids.new_id() for _ in range(10_000)]

    assert made == sorted(set(made))
    assert all(ids.is_job_id(job_id) for job_id in made)


@given(PARTS, PARTS)
def test_a_job_id_can_be_split_into_its_parts(base: str, key: str) -> None:
    job_id = ids.job_id(base, key)

    assert ids.is_job_id(job_id)
    assert ids.ordering_key_of(job_id) == key
    assert len(job_id) <= ids.MAX_JOB_ID_LENGTH


@given(PARTS)
def test_a_job_id_without_an_ordering_key_has_none(base: str) -> None:
    assert ids.job_id(base, None) == base
    assert ids.ordering_key_of(base) is None


@pytest.mark.parametrize("part", NOT_PARTS)
def test_an_invalid_part_is_refused_without_being_quoted(part: str) -> None:
    with pytest.raises(ValueError, match="key must match") as of_base:
        ids.job_id(part, None)
    with pytest.raises(ValueError, match="key must match") as of_key:
        ids.job_id("a", part)

    assert str(of_base.value) == "idempotency key must match [A-Za-z0-9][A-Za-z0-9_.:-]{0,127}"
    assert str(of_key.value) == "ordering key must match [A-Za-z0-9][A-Za-z0-9_.:-]{0,127}"


@pytest.mark.parametrize(
    "text", [*(part for part in NOT_PARTS if part != "a@b"), "@user:1", "a@", "a@@b", "a@b@c", "a@b "]
)
def test_an_invalid_id_is_recognised(text: str) -> None:
    assert not ids.is_job_id(text)


@given(st.text())
def test_every_text_is_an_id_or_not(text: str) -> None:
    if ids.is_job_id(text):
        base, _, key = text.partition("@")
        assert ids.job_id(base, key or None) == text


@pytest.mark.parametrize(
    "options",
    [
        {"idempotency_key": ""},
        {"idempotency_key": "a@b"},
        {"ordering_key": ""},
        {"ordering_key": "user 42"},
        {"defer_by": -0.001},
        {"defer_by": timedelta(seconds=-1)},
        {"defer_by": float("nan")},
        {"defer_by": float("inf")},
        {"defer_by": MAX_DELAY_SECONDS + 1},
        {"defer_until": datetime(2030, 1, 1)},  # noqa: DTZ001  # the missing zone is the point
        {"defer_until": datetime.max.replace(tzinfo=UTC)},
        {"defer_until": datetime.max.replace(tzinfo=timezone(timedelta(hours=-23)))},
        {"defer_by": 1, "defer_until": datetime(2030, 1, 1, tzinfo=UTC)},
    ],
)
def test_an_invalid_option_is_refused_when_the_request_is_made(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"defer_by|defer_until|key must match"):
        Request(DeleteUser(user_id=1), **options)


@pytest.mark.parametrize(
    ("options", "delay_ms", "due_ms"),
    [
        ({}, 0, 0),
        ({"defer_by": 0}, 0, 0),
        ({"defer_by": 1.5}, 1500, 0),
        ({"defer_by": timedelta(minutes=1)}, 60_000, 0),
        ({"defer_by": MAX_DELAY_SECONDS}, MAX_DELAY_SECONDS * 1000, 0),
        ({"defer_until": datetime(2030, 1, 1, tzinfo=UTC)}, 0, 1_893_456_000_000),
        ({"defer_until": datetime(2030, 1, 1, 2, tzinfo=timezone(timedelta(hours=2)))}, 0, 1_893_456_000_000),
    ],
)
def test_delays_are_in_milliseconds(options: dict[str, Any], delay_ms: int, due_ms: int) -> None:
    encoded = Request(DeleteUser(user_id=1), **options).encode()

    assert (encoded.delay_ms, encoded.due_ms) == (delay_ms, due_ms)


def test_a_request_has_the_ordering_key_of_its_message_unless_another_is_named() -> None:
    by_message = Request(DeleteUser(user_id=42), idempotency_key="a").encode()
    named = Request(DeleteUser(user_id=42), idempotency_key="a", ordering_key="tenant:7").encode()
    without = Request(CreatePost(author_id=42, title="t", content="c"), idempotency_key="a").encode()

    assert (by_message.job_id, named.job_id, without.job_id) == ("a@user:42", "a@tenant:7", "a")


def test_the_digest_of_an_idempotency_key_covers_content_and_ordering_key() -> None:
    def digest(user_id: int, ordering_key: str | None = None, idempotency_key: str | None = "a") -> str:
        message = DeleteUser(user_id=user_id)
        return Request(message, idempotency_key=idempotency_key, ordering_key=ordering_key).encode().digest

    assert digest(42) == digest(42, "user:42")
    assert len({digest(42), digest(43), digest(42, "tenant:7"), digest(42, "tenant:8")}) == 4
    assert digest(42, idempotency_key=None) == ""

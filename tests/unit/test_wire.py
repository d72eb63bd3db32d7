"""The wire: messages survive it, stock arq understands it, and no bytes read from it do harm."""

import asyncio
import json
import pickle
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from arq.jobs import (
    DeserializationError,
    SerializationError,
    deserialize_job,
    deserialize_job_raw,
    deserialize_result,
    serialize_job,
    serialize_result,
)
from hypothesis import example, given
from hypothesis import strategies as st

from producers import (
    CreatePost,
    DeleteUser,
    JobCancelled,
    JobDead,
    JobError,
    JobRejected,
    UpdateUser,
    User,
    wire,
)
from producers.arq_wire import dumps, loads
from producers.errors import DEAD_CODES, REJECTED_CODES
from producers.fields import CONTENT_LENGTH, MAX_ID
from producers.messages import MESSAGES
from producers.wire import WireError, decode, decode_result, encode, fields_json, headers_json

JOB = b'{"f":"delete_user","k":{"user_id":1},"a":[],"t":null,"et":1700000000000}'
RESULT = b'{"f":"delete_user","k":{},"a":[],"t":1,"et":1,"st":2,"ft":3,"q":"arq:queue","id":"x","s":%s,"r":%s}'
SECRET = "s3cret-value"

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
ENVELOPE_LIKE = st.dictionaries(
    st.sampled_from(["f", "k", "a", "t", "et", "v", "h", "s", "r", "st", "ft", "q", "id"]), JSON_VALUES
)


def with_field(name: str, value: str) -> bytes:
    """The payload of a job with one field replaced."""
    return json.dumps({**json.loads(JOB), name: json.loads(value)}).encode()


def read_result(done: bool, reply: object) -> Any:
    """The result as a stock arq client reads it."""
    data = RESULT % (b"true" if done else b"false", json.dumps(reply).encode())
    return deserialize_result(data, deserializer=loads).result


# Round trip


@given(st.integers(1, MAX_ID), st.text(max_size=200).filter(lambda text: "\x00" not in text and text != ""), st.text())
def test_a_message_survives_the_wire(author_id: int, title: str, content: str) -> None:
    message = CreatePost(author_id=author_id, title=title, content=content.replace("\x00", ""))

    envelope = decode(encode("create_post", fields_json(message), enqueue_time_ms=1))

    assert MESSAGES[envelope.f].model_validate(envelope.k) == message


def test_headers_survive_the_wire_and_may_be_missing() -> None:
    fields = fields_json(DeleteUser(user_id=1))

    headers = headers_json({"producer": "a"})
    assert decode(encode("delete_user", fields, enqueue_time_ms=1, headers=headers)).h == {"producer": "a"}
    assert decode(encode("delete_user", fields, enqueue_time_ms=1)).h == {}
    assert decode(JOB).v == 1


def test_equal_messages_have_equal_bytes() -> None:
    one = UpdateUser.model_validate({"user_id": 1, "changes": {"username": "a", "is_active": True}})
    other = UpdateUser.model_validate({"changes": {"is_active": True, "username": "a"}, "user_id": 1})

    assert fields_json(one) == fields_json(other)
    assert b"null" not in fields_json(one)
    assert wire.digest("update_user", fields_json(one)) == wire.digest("update_user", fields_json(other))
    assert wire.digest("update_user", fields_json(one)) != wire.digest("update_post", fields_json(one))


def test_the_longest_content_fits_the_default_limit_even_when_escaped() -> None:
    payload = json.dumps({**json.loads(JOB), "k": {"content": "🐍" * CONTENT_LENGTH}}, ensure_ascii=True)

    assert len(payload) < 1024 * 1024


# Stock arq


def test_a_job_of_a_stock_client_can_be_decoded() -> None:
    payload = serialize_job("delete_user", (), {"user_id": 1}, None, 1700000000000, serializer=dumps)

    envelope = decode(payload)
    assert (envelope.f, envelope.k, envelope.et, envelope.v) == ("delete_user", {"user_id": 1}, 1700000000000, 1)


def test_stock_arq_decodes_a_job_of_a_producer() -> None:
    headers = headers_json({"producer": "a"})
    payload = encode("delete_user", b'{"user_id":1}', enqueue_time_ms=1700000000000, headers=headers)

    job = deserialize_job(payload, deserializer=loads)
    assert (job.function, list(job.args), job.kwargs) == ("delete_user", [], {"user_id": 1})
    assert job.enqueue_time == datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
    assert deserialize_job_raw(payload, deserializer=loads)[2] == {"user_id": 1}


def test_the_result_of_a_stock_worker_holds_no_argument() -> None:
    reply = User(id=1, email="a@example.com", username="a", is_active=True, created_at=datetime.now(UTC))
    arguments = ((SECRET,), {"hashed_password": SECRET})

    data = serialize_result(
        "create_user", *arguments, 1, 1, True, reply, 2, 3, "ref", "arq:queue", "x", serializer=dumps
    )

    assert data is not None
    assert SECRET.encode() not in data
    assert User.model_validate(decode_result(data).r) == reply
    assert deserialize_result(data, deserializer=loads).success is True


class _Crash(Exception):
    """An exception of a handler, with a value in its text."""


def _caused_by_wire() -> Exception:
    error = DeserializationError("unable to deserialize job")
    error.__cause__ = WireError("not JSON")
    return error


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (JobRejected("conflict", "the e-mail address is taken"), "conflict"),
        (JobDead("failed", "gave up"), "failed"),
        (asyncio.CancelledError(), "cancelled"),
        (_Crash(SECRET), "failed"),
        (TimeoutError(SECRET), "timeout"),
        (RuntimeError("job expired"), "expired"),
        (RuntimeError("function 'nope' not found"), "unknown_job"),
        (RuntimeError("max 5 retries exceeded"), "crashed"),
        (_caused_by_wire(), "undecodable"),
        ("unable to serialize result", "failed"),
    ],
)
def test_an_outcome_other_than_done_is_a_code_and_a_detail_without_values(raised: object, code: str) -> None:
    data = serialize_result("f", (), {}, 1, 1, False, raised, 2, 3, "ref", "arq:queue", "x", serializer=dumps)

    assert data is not None
    assert SECRET.encode() not in data
    failure = json.loads(data)["r"]
    assert failure["code"] == code
    assert set(failure) == {"code", "detail"}
    assert failure["detail"]


def test_stock_arq_raises_the_errors_of_producers() -> None:
    for code in REJECTED_CODES:
        assert isinstance(read_result(False, {"code": code, "detail": "d"}), JobRejected)
    for code in DEAD_CODES | {"a code of a later version"}:
        assert isinstance(read_result(False, {"code": code, "detail": "d"}), JobDead)
    assert isinstance(read_result(False, {"code": "cancelled", "detail": "d"}), asyncio.CancelledError)
    assert read_result(True, {"deleted": True}) == {"deleted": True}


@pytest.mark.parametrize("reply", [None, [], "words", {}, {"code": None}, {"detail": 7}, 42])
def test_a_malformed_failure_is_a_failure_with_defaults(reply: object) -> None:
    error = read_result(False, reply)

    assert isinstance(error, JobDead)
    assert isinstance(error.detail, str)


def test_a_stock_client_refuses_values_that_json_cannot_hold() -> None:
    with pytest.raises(SerializationError):
        serialize_job("delete_user", (), {"user_id": object()}, None, 1, serializer=dumps)


# Bytes written by other clients


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"not json",
        b"null",
        b"[]",
        b"{}",
        b'"text"',
        b"\xff\xfe",
        b"\x00",
        JOB[:-1],
        JOB + JOB,
        pickle.dumps({"f": "delete_user", "k": {"user_id": 1}, "a": (), "t": None, "et": 1}),
        with_field("f", '""'),
        with_field("f", "null"),
        with_field("f", '"two words"'),
        with_field("f", json.dumps("x" * 129)),
        with_field("k", "[]"),
        with_field("k", "null"),
        with_field("a", "[1]"),
        with_field("a", "null"),
        with_field("t", "0"),
        with_field("t", '"1"'),
        with_field("t", "true"),
        with_field("et", "-1"),
        with_field("et", "1.5"),
        with_field("et", "null"),
        with_field("et", "253402300800000"),
        with_field("v", "2"),
        with_field("v", "null"),
        with_field("h", '{"producer": 1}'),
        with_field("h", json.dumps({"producer": "x" * 513})),
        with_field("h", json.dumps({str(number): "" for number in range(17)})),
        with_field("surprise", "1"),
        b'{"f":"a","k":{"x":%s},"a":[],"t":null,"et":1}' % (b"[" * 100_000),
        b'{"f":"a","k":{"x":%s},"a":[],"t":null,"et":1}' % (b"[" * 500 + b"]" * 500),
        b'{"f":"a","k":{"x":%s},"a":[],"t":null,"et":1}' % (b"9" * 5000),
        b'{"f":"a","k":{"x":"\\ud800"},"a":[],"t":null,"et":1}',
    ],
)
def test_bytes_that_are_no_envelope_are_a_wire_error(payload: bytes) -> None:
    with pytest.raises(WireError):
        decode(payload)
    with pytest.raises(WireError):
        loads(payload)


@given(st.binary())
@example(pickle.dumps(_Crash))
@example(b'{"r":')
@example(b'{"r":1}')
@example(RESULT % (b"true", b"[" * 150 + b"]" * 150))
@example(RESULT % (b"true", b"[" * 300 + b"]" * 300))
@example(RESULT % (b"false", b"1" * 5000))
@example(RESULT % (b'"true"', b"1"))
def test_decoding_any_bytes_raises_at_most_a_wire_error(data: bytes) -> None:
    for read in (loads, decode, decode_result):
        with suppress(WireError):
            read(data)


@given(ENVELOPE_LIKE)
def test_decoding_any_json_raises_at_most_a_wire_error(value: dict[str, Any]) -> None:
    data = json.dumps(value).encode()
    for read in (loads, decode, decode_result):
        with suppress(WireError):
            read(data)


@pytest.mark.parametrize(
    "payload",
    [
        with_field("f", json.dumps(SECRET + "!")),
        with_field("et", json.dumps(SECRET)),
        with_field("a", json.dumps([SECRET])),
        with_field("h", json.dumps({"producer": [SECRET]})),
        SECRET.encode(),
        RESULT % (b"1", json.dumps(SECRET).encode()),
    ],
)
def test_no_wire_error_holds_a_value(payload: bytes) -> None:
    with pytest.raises(WireError) as caught:
        loads(payload)

    assert SECRET not in f"{caught.value} {caught.value!r}"


@pytest.mark.parametrize(
    ("reply", "kind"),
    [(b'{"code":"conflict","detail":"d"}', JobRejected), (b'{"code":"cancelled","detail":"d"}', JobCancelled)],
)
def test_the_error_of_a_result_has_the_type_of_its_outcome(reply: bytes, kind: type[JobError]) -> None:
    error = decode_result(RESULT % (b"false", reply)).error

    assert isinstance(error, kind)
    assert (error.detail, error.job_id) == ("d", "x")
    assert decode_result(RESULT % (b"true", b"null")).error is None

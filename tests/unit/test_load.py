"""Loading a file of any quality: each line is one job or one problem, in bounded memory."""

import asyncio
import io
import json
import tracemalloc
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers import EnqueueError, EnqueueUnconfirmed, IdempotencyConflict, RedisRefused, RedisUnavailable
from producers._encoding import Encoded
from producers._sender import JOBS_PER_CALL, Sender
from producers.cli.fields import all_names, flat_fields
from producers.cli.load import Load, Naming, Stopped
from producers.cli.records import JOB, MAX_LINE_BYTES, OPTIONS, BadLine, Format, HeaderError, Lines, Record, read
from producers.messages import MESSAGES

HASH = "$2b$12$EixZaYVK1fsbw1ZfbX3OXePaWxn96p36WQoeG6Lruj3vjPGga31lW"
SECRET = "s3cret-value"


def lines_of(data: bytes) -> list[tuple[int, bytes | None]]:
    return list(Lines(io.BytesIO(data)))


def jsonl(*lines: bytes) -> list[Record | BadLine]:
    return list(read(Lines(io.BytesIO(b"\n".join(lines))), Format.JSONL))


def csv(text: str | bytes) -> list[Record | BadLine]:
    data = text.encode() if isinstance(text, str) else text
    return list(read(Lines(io.BytesIO(data)), Format.CSV))


def problem(found: list[Record | BadLine]) -> str:
    """The one problem of the one bad line."""
    (bad,) = found
    assert isinstance(bad, BadLine)
    return "; ".join(bad.problems)


class FakeSender:
    """Gives prepared answers, and records the jobs of each call."""

    def __init__(self, answers: Sequence[bool | EnqueueError] = ()) -> None:
        self.answers = list(answers)
        self.calls: list[list[Encoded]] = []

    async def send(self, jobs: Sequence[Encoded]) -> list[bool | EnqueueError]:
        self.calls.append(list(jobs))
        given, self.answers = self.answers[: len(jobs)], self.answers[len(jobs) :]
        return given + [True] * (len(jobs) - len(given))

    @property
    def sent(self) -> list[Encoded]:
        return [job for call in self.calls for job in call]


class Loaded:
    """The result of loading a file through a sender."""

    def __init__(
        self,
        data: bytes,
        *,
        sender: FakeSender | None = None,
        prefix: str | None = "p",
        form: Format = Format.JSONL,
    ) -> None:
        self.bad: list[BadLine] = []
        self.sender = sender or FakeSender()
        self.load = Load(naming=Naming.of(prefix), refuse=self.bad.append)
        self.stopped: BaseException | None = None
        records = read(Lines(io.BytesIO(data)), form)
        try:
            asyncio.run(self.load.run(records, sender=cast("Sender", self.sender)))
        except Stopped as stopped:
            self.stopped = stopped.__cause__


def deletes(count: int) -> bytes:
    return b"".join(b'{"job":"delete_user","user_id":%d}\n' % number for number in range(1, count + 1))


# Lines


@given(st.binary())
def test_lines_have_exactly_the_bytes_of_the_file(data: bytes) -> None:
    lines = lines_of(data)

    assert b"".join(line or b"" for _, line in lines) == data.removeprefix(b"\xef\xbb\xbf")
    assert [number for number, _ in lines] == list(range(1, len(lines) + 1))


@pytest.mark.parametrize("end", [b"", b"\n"])
@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("excess", [-1, 0, 1, 2, 3, MAX_LINE_BYTES, 3 * MAX_LINE_BYTES])
def test_a_line_over_the_limit_is_refused_and_the_next_is_read(excess: int, start: bytes, end: bytes) -> None:
    line = start + b"x" * (MAX_LINE_BYTES + excess - len(start))

    found = lines_of(line + b"\nnext" + end)

    assert found[0] == (1, (line + b"\n").removeprefix(b"\xef\xbb\xbf") if excess <= 0 else None)
    assert found[1:] == [(2, b"next" + end)]


def test_a_line_of_any_length_takes_bounded_memory() -> None:
    class Endless(io.RawIOBase):
        left = 200 * MAX_LINE_BYTES

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            size = min(len(buffer), self.left)
            buffer[:size] = b"x" * size
            self.left -= size
            return size

    file = io.BufferedReader(Endless())
    tracemalloc.start()

    assert list(Lines(file)) == [(1, None)]

    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10 * MAX_LINE_BYTES


# JSON Lines


def test_a_line_is_a_job_with_its_fields_and_its_options() -> None:
    line = {"job": "update_user", "user_id": 1, "changes": {"username": "a"}, "idempotency_key": "k", "defer_by": 1.5}

    (record,) = jsonl(json.dumps(line).encode())

    assert record == Record(
        1,
        "update_user",
        {"user_id": 1, "changes": {"username": "a"}},
        {"idempotency_key": "k", "defer_by": 1.5},
    )


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"not json", "not JSON"),
        (b'{"job":"delete_user"', "not JSON"),
        (b"[1]", "not a JSON object"),
        (b"null", "not a JSON object"),
        (b"{}", "job: must be one of create_user, "),
        (b'{"job":null}', "job: must be one of"),
        (b'{"job":["delete_user"]}', "job: must be one of"),
        (b'{"job":"s3cret-value"}', "job: must be one of"),
        (b'{"job":"delete_user","user_id":\xff}', "not UTF-8"),
        (b"\xff\xfe\x00{", "not UTF-8"),
        (b"[" * 100_000, "not JSON"),
        (b'{"job":"delete_user","user_id":"\\ud800"}', "not JSON"),
        (b'{"job":"' + b"x" * MAX_LINE_BYTES + b'"}', "longer than 1048576 bytes"),
    ],
    ids=lambda value: value[:24] if isinstance(value, bytes) else "",
)
def test_a_bad_line_is_one_problem_and_the_next_is_read(line: bytes, expected: str) -> None:
    bad, good = jsonl(line, b'{"job":"delete_user","user_id":1}')

    assert problem([bad]).startswith(expected)
    assert SECRET not in problem([bad])
    assert good == Record(2, "delete_user", {"user_id": 1}, {})


def test_empty_lines_are_skipped_and_counted() -> None:
    (record,) = jsonl(b"", b"  ", b'{"job":"delete_user","user_id":1}', b"")

    assert record.line == 3


# CSV


def test_a_row_is_a_job_with_its_cells_converted_to_the_types_of_its_fields() -> None:
    found = csv(
        "job,user_id,author_id,title,content,is_active,idempotency_key,defer_by\r\n"
        'create_post,,7,42,"two\r\nlines, ""quoted""",,k,1.5\r\n'
        "update_user,7,,,,no,,\r\n"
        "\r\n"
        "delete_user, 8 ,,,,,,\r\n"
    )

    assert found == [
        Record(
            2,
            "create_post",
            {"author_id": 7, "title": "42", "content": 'two\r\nlines, "quoted"'},
            {"idempotency_key": "k", "defer_by": 1.5},
        ),
        Record(4, "update_user", {"user_id": 7, "changes": {"is_active": False}}, {}),
        Record(6, "delete_user", {"user_id": 8}, {}),
    ]


def test_a_byte_order_mark_is_not_part_of_the_header() -> None:
    assert csv("\ufeffjob,user_id\ndelete_user,1\n") == [Record(2, "delete_user", {"user_id": 1}, {})]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (b"delete_user", "1 cells, but the header has 4"),
        (b"delete_user,1,,,", "5 cells, but the header has 4"),
        (b"s3cret-value,1,,", "job: must be one of"),
        (b",1,,", "job: must be one of"),
        (b"delete_user,1,\xff,", "not UTF-8"),
        (b'delete_user,1,"a"b,', "not CSV"),
        (b"delete_user,1,,soon", "defer_by: input should be a valid number"),
        (b'delete_user,1,"' + b"x" * MAX_LINE_BYTES + b'",', "not CSV: longer than 1048576 bytes"),
        (b'delete_user,1,"' + b"x" * 200_000 + b'",', "not CSV: field larger than field limit"),
    ],
    ids=lambda value: value[:24] if isinstance(value, bytes) else "",
)
def test_a_bad_row_is_one_problem_and_the_next_is_read(row: bytes, expected: str) -> None:
    bad, good = csv(b"job,user_id,title,defer_by\n" + row + b"\ndelete_user,2,,\n")

    assert problem([bad]).startswith(expected)
    assert SECRET not in problem([bad])
    assert good == Record(3, "delete_user", {"user_id": 2}, {})


def test_an_unclosed_quote_takes_bounded_memory_and_names_its_first_line() -> None:
    row = b"create_post,7,t,text\n"
    count = 2 * MAX_LINE_BYTES // len(row)

    bad, *rest = csv(b'job,author_id,title,content\ncreate_post,7,t,"text\n' + row * count)

    assert problem([bad]).startswith("not CSV: field larger than field limit (131072) (up to line ")
    assert bad.line == 2
    assert len(rest) > count // 3
    assert all(isinstance(record, Record) for record in rest)


def test_the_size_of_a_row_of_many_lines_is_limited() -> None:
    names = ["email", "username", "title", "content", "ordering_key", "idempotency_key", "hashed_password", "is_active"]
    cell = '"' + "x" * 65_000 + "\n" + "x" * 65_000 + '"'
    row = ",".join(["create_post", *[cell] * len(names), cell])

    found = csv(f"job,{','.join(names)},user_id\n{row}\n")

    assert all(isinstance(record, BadLine) for record in found)
    assert problem(found[:1]).startswith("not CSV: longer than 1048576 bytes (up to line ")


def test_an_unclosed_quote_in_a_short_file_names_its_first_line() -> None:
    found = csv('job,author_id,title,content\ncreate_post,7,t,"text\ncreate_post,7,t,text\n')

    assert problem(found) == "not CSV: unexpected end of data (up to line 3: is a quote missing?)"


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("user_id,title", "no column is called job"),
        ("job,s3cret-value", "column 2 is not one of job, email, "),
        ("delete_user,1", "column 1 is not one of"),
        ("job,user_id,user_id", "column 3 repeats user_id"),
        ("job,", "column 2 is not one of"),
        ("job;user_id", "column 1 is not one of"),
        ('job,"user_id', "the header is not CSV"),
    ],
)
def test_a_bad_header_ends_the_load_without_being_quoted(header: str, expected: str) -> None:
    with pytest.raises(HeaderError, match=f"^{expected}") as caught:
        csv(header + "\ndelete_user,1\n")

    assert SECRET not in str(caught.value)


@given(st.binary())
def test_any_bytes_are_records_or_problems(data: bytes) -> None:
    for bad in jsonl(data):
        assert isinstance(bad, BadLine)
    for found in csv(b"job,user_id,content\n" + data):
        assert found.line >= 2


# Every message


def test_every_message_has_a_flat_form() -> None:
    for message in MESSAGES.values():
        assert flat_fields(message)


def test_no_field_has_the_name_of_an_option() -> None:
    assert not set(all_names()) & {JOB, *OPTIONS}


# Sending


def test_jobs_are_sent_in_the_order_of_the_file_with_ids_from_their_lines() -> None:
    loaded = Loaded(b"\n" + deletes(2 * JOBS_PER_CALL + 1))

    assert [job.job_id for job in loaded.sender.sent] == [
        f"p-{number + 1}@user:{number}" for number in range(1, 2 * JOBS_PER_CALL + 2)
    ]
    assert max(len(call) for call in loaded.sender.calls) <= JOBS_PER_CALL
    assert (loaded.load.lines, loaded.load.accepted, loaded.load.refused) == (1001, 1001, 0)


def test_calls_are_limited_in_bytes() -> None:
    line = json.dumps({"job": "create_post", "author_id": 1, "title": "t", "content": "ä" * 65_536}).encode()

    loaded = Loaded(b"\n".join([line] * 100))

    assert loaded.load.accepted == 100
    assert max(sum(len(job.payload) for job in call) for call in loaded.sender.calls) <= 4 * 1024 * 1024


def test_a_given_prefix_is_remembered_and_a_generated_one_is_not() -> None:
    given_one = Loaded(deletes(1), prefix="import-7").sender.sent[0]
    made_up = Loaded(deletes(1), prefix=None)

    assert (given_one.job_id, given_one.idempotency_key) == ("import-7-1@user:1", "import-7-1")
    assert given_one.digest
    (job,) = made_up.sender.sent
    assert (job.idempotency_key, job.digest) == (None, "")
    assert job.job_id.endswith("-1@user:1")


def test_a_load_can_be_continued_under_its_generated_prefix() -> None:
    first = Loaded(deletes(3), prefix=None)
    prefix = first.sender.sent[0].job_id.rpartition("-")[0]

    again = Loaded(deletes(3), prefix=prefix)

    assert [job.job_id for job in again.sender.sent] == [job.job_id for job in first.sender.sent]


def test_the_options_of_a_line_are_used() -> None:
    line = b'{"job":"delete_user","user_id":1,"idempotency_key":"k","ordering_key":"o","defer_by":2}'

    (job,) = Loaded(line).sender.sent

    assert (job.job_id, job.idempotency_key, job.delay_ms) == ("k@o", "k", 2000)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ({"user_id": "1"}, "user_id: input should be a valid integer"),
        ({"user_id": 1, "idempotency_key": "a b"}, "idempotency key must match"),
        ({"user_id": 1, "idempotency_key": 7}, "idempotency_key: input should be a valid string"),
        ({"user_id": 1, "ordering_key": ""}, "ordering key must match"),
        ({"user_id": 1, "defer_by": -1}, "defer_by: input should be greater than or equal to 0"),
        ({"user_id": 1, "defer_by": "1"}, "defer_by: input should be a valid number"),
        ({"user_id": 1, "defer_by": 1e300}, "defer_by: input should be less than or equal to"),
        ({"user_id": 1, "defer_by": float("nan")}, "defer_by: input should be"),
        ({"user_id": 1, "changes": {}}, "changes: extra inputs are not permitted"),
        ({}, "user_id: field required"),
    ],
)
def test_a_message_that_breaks_the_contract_is_a_bad_line(line: dict[str, Any], expected: str) -> None:
    loaded = Loaded(json.dumps({"job": "delete_user", **line}).encode() + b"\n" + deletes(1))

    assert problem(list(loaded.bad)).startswith(expected)
    assert (loaded.load.accepted, loaded.load.refused) == (1, 1)


def test_null_does_not_count_as_left_out() -> None:
    line = {"job": "create_user", "email": "a@example.com", "username": "a", "hashed_password": HASH, "is_active": None}

    assert problem(list(Loaded(json.dumps(line).encode()).bad)) == "is_active: input should be a valid boolean"


def test_known_jobs_and_conflicts_are_counted_separately() -> None:
    loaded = Loaded(deletes(3), sender=FakeSender([True, False, IdempotencyConflict("p-3@user:3")]))

    assert (loaded.load.accepted, loaded.load.known, loaded.load.refused) == (1, 1, 1)
    assert loaded.bad[0].line == 3
    assert loaded.stopped is None


@pytest.mark.parametrize(
    "error", [RedisUnavailable("down"), EnqueueUnconfirmed("p-501@user:501", "silent"), RedisRefused("no memory")]
)
def test_an_error_of_redis_stops_the_load_at_the_first_line_that_may_be_missing(error: EnqueueError) -> None:
    sender = FakeSender([True] * JOBS_PER_CALL + [error] * JOBS_PER_CALL)

    loaded = Loaded(deletes(JOBS_PER_CALL) + b"\n\n" + deletes(2000), sender=sender)

    assert loaded.stopped is error
    assert len(sender.calls) == 2
    assert (loaded.load.accepted, loaded.load.next_line) == (JOBS_PER_CALL, JOBS_PER_CALL + 3)


async def test_a_swallowed_cancellation_ends_the_load() -> None:
    class SwallowsCancels(FakeSender):
        async def send(self, jobs: Sequence[Encoded]) -> list[bool | EnqueueError]:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0)
            return await super().send(jobs)

    sender = SwallowsCancels()
    load = Load(naming=Naming.of(None), refuse=lambda _: None)
    records = read(Lines(io.BytesIO(deletes(2000))), Format.JSONL)

    running = asyncio.create_task(load.run(records, sender=cast("Sender", sender)))
    with pytest.raises(asyncio.CancelledError):
        await running

    assert len(sender.calls) == 1
    assert (load.accepted, load.next_line) == (JOBS_PER_CALL, JOBS_PER_CALL + 1)


def test_a_load_without_a_sender_checks_all_lines() -> None:
    bad: list[BadLine] = []
    load = Load(naming=Naming.of(None), refuse=bad.append)
    records = read(Lines(io.BytesIO(deletes(1000) + b"{}\n")), Format.JSONL)

    asyncio.run(load.run(records, sender=None))

    assert (load.lines, load.valid, load.accepted, load.refused) == (1001, 1000, 0, 1)


@pytest.mark.parametrize("prefix", ["", " ", "a b", "-a", "a@b", "x" * 120])
def test_a_prefix_that_cannot_begin_an_id_is_refused(prefix: str) -> None:
    with pytest.raises(ValueError, match="idempotency key must match"):
        Naming.of(prefix)

"""Hostile input, generated from a seed: payloads, results, heartbeats, dead letters, ids, files, keys of wrong types.

Every value in it holds the marker, so that a leak is visible in any output.
"""

import json
import pickle
import random
import string
from collections.abc import Callable, Iterator
from typing import Any

from producers import wire

MARKER = "S3cret!Marker"
"""No log, error or reply may hold it. It cannot be a field name: field names are shown."""
HASH = f"scrypt:32768:8:1${MARKER}${'0123456789abcdef' * 4}"
EMAIL = f"{MARKER}@example.com"
MAX_BYTES = 100_000

FIELDS: dict[str, dict[str, Any]] = {
    "create_user": {"email": EMAIL, "username": MARKER, "hashed_password": HASH},
    "update_user": {"user_id": 7, "changes": {"username": MARKER, "is_active": False}},
    "delete_user": {"user_id": 7},
    "create_post": {"author_id": 7, "title": MARKER, "content": MARKER},
    "update_post": {"post_id": 7, "changes": {"title": MARKER}},
    "delete_post": {"post_id": 7},
}

# JSON values, and text that is not quite JSON.
VALUES = (
    b"null", b"true", b"{}", b"[]", b'""', b"0", b"-1", b"7.5", b"1e400", b"-1e400", b"NaN", b"Infinity", b"-Infinity",
    b"9223372036854775807", b"9223372036854775808", b"-9223372036854775809", b"1" * 400, b"1" * 5000,
    b"0." + b"1" * 400,
    b'"\\u0000"', b'"a\\u0000b"', b'"\\ud800"', b'"\\udfff\\ud800"', b'"\xed\xa0\x80"', b'"\xff"', b'"\x00"', b"01",
    b'"' + MARKER.encode() + b'"', b'"' + b"x" * 70_000 + b'"', b"[" * 150 + b"]" * 150, b"[" * 5000,
    b'{"a":' * 180 + b"1" + b"}" * 180, b'{"' + MARKER.encode() + b'":1}', b'"2020-01-01"', b"'single'", b"// no",
)  # fmt: skip
CODES = ("conflict", "failed", "cancelled", MARKER, "", "\x1b[2J", "x" * 10_000)


class Exploit:
    """Code that runs if its pickle is loaded."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, (f"raise SystemExit({MARKER!r})",))


class Fuzzer:
    """Generates input from a seed, which repeats it."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)  # noqa: S311  # repeatable, not secret

    def payload(self) -> bytes:
        """The envelope of a job, rarely a valid one."""
        return self._one_of(
            self._noise, self._pickled, self._constant, *[self._mutated] * 3, *[self._with_bad_fields] * 6
        )

    def result(self) -> bytes:
        reply = self._json({"code": self.random.choice(CODES), "detail": MARKER}, {"id": 7, "email": EMAIL}, [MARKER])
        return self._one_of(self._noise, self._pickled, lambda: self._corrupted(self._result(reply)), self._constant)

    def heartbeat(self) -> bytes:
        numbers = (0, 1, -1, 7.5, 1e308, -1e308, 2**63, 2**64, 10**300, 1_700_000_000, MARKER, None, "nan", "inf", True)
        names = ("at", "running", "held", "concurrency")
        text = json.dumps({name: self.random.choice(numbers) for name in names})
        return self._one_of(self._noise, text.encode, lambda: self._corrupted(text))

    def death_record(self) -> bytes:
        record = {
            "job": self.random.choice(["create_user", "\x1b]0;x\x07", "", "x" * 5000]),
            "code": self.random.choice(["failed", "\u202e", "\n\n", 7, None]),
            "detail": self.random.choice(["reason", "\x00\x1b[31m", "\U0001f4a5" * 400, {}, "[red]no[/nothing]"]),
            "attempts": self.random.choice([1, -1, 10**30, 2**63, "1", None, 1.5]),
            "enqueued_ms": self.random.choice([1, -1, 10**30, -(10**18), 253402300800000, None]),
            "worker": self.random.choice(["host:1", "\ufeff", None]),
        }
        text = json.dumps(record)
        return self._one_of(self._noise, text.encode, lambda: self._corrupted(text))

    def job_id(self) -> bytes:
        """The id of a job. A valid id holds no marker: ids are shown."""
        number = b"%d" % self.random.randrange(10**9)
        secret = b" " + MARKER.encode()
        ends = (b"", b"@k", b"@", b"@@", b"@k@k", b"@" + number, b"\x00", b"\n", b"\xff\xfe", b"\xed\xa0\x80", b"{}",
                b"\x1b[2J", "\u202e\U0001f4a5".encode(), b"x" * 300, b"x" * 5000, b"[red]", b"\\x", b"*", b"%s", b"$1",
                secret, secret + b"@k", b"@" + secret)  # fmt: skip
        return self.random.choice((b"", b"-", b".", b"@", b" ", b"j")) + number + self.random.choice(ends)

    def score(self) -> float:
        """The score of a job: mostly due now, in any notation."""
        past = (0.0, 1.0, -1.0, 0.1, 5e-324, -1e308, float("-inf"), 1.7e12)
        never = (1e14, 1e15, 1e15 + 1, 1e16, 2.0**63, 1e308, float("inf"))
        return self.random.choice(past if self.random.random() < 0.9 else never)

    def line(self) -> bytes:
        """A line of a JSON Lines file."""
        job = self.random.choice([*FIELDS, MARKER])
        options: dict[str, Any] = self.random.choice(
            [{}, {"defer_by": 1e400}, {"ordering_key": MARKER + " "}, {"idempotency_key": 7}]
        )
        line = json.dumps({"job": job, **FIELDS.get(job, {}), **options})
        return self._one_of(self._noise, lambda: self._corrupted(line), lambda: line.encode("utf-16"), self._constant)

    def row(self) -> bytes:
        """A row of a CSV file."""
        cells = [self.random.choice([MARKER, '"', '""', "7", "", "\x00", "9" * 30, "x" * 9000, "\r"]) for _ in range(3)]
        return self._one_of(self._noise, lambda: ",".join(cells).encode(), lambda: b"delete_user," + self._noise())

    def wrong_type(self) -> tuple[str | int | bytes, ...]:
        """A command without its key, which creates a key of a wrong type."""
        commands = [("LPUSH", MARKER), ("HSET", MARKER, 1), ("SADD", MARKER), ("XADD", "*", "a", MARKER)]
        return self.random.choice([*commands, ("ZADD", 1, MARKER)])

    def _one_of(self, *generators: Callable[[], bytes]) -> bytes:
        return self.random.choice(generators)()[:MAX_BYTES]

    def _noise(self) -> bytes:
        return self.random.randbytes(self.random.choice([0, 1, 2, 7, 40, 300]))

    def _pickled(self) -> bytes:
        value = self.random.choice([Exploit(), {"f": "create_user", "k": FIELDS["create_user"]}, MARKER])
        return pickle.dumps(value, protocol=self.random.randrange(6))

    def _constant(self) -> bytes:
        return self.random.choice(VALUES)

    def _envelope(self, change: Callable[[bytes], bytes]) -> bytes:
        job = self.random.choice(list(FIELDS))
        headers = self.random.choice([None, {"producer": "p"}, {"traceparent": "00-" + MARKER}, {MARKER: MARKER}])
        fields = change(json.dumps(FIELDS[job]).encode())
        in_json = wire.headers_json(headers) if headers else b""
        return wire.encode(job, fields, enqueue_time_ms=1_700_000_000_000, headers=in_json)

    def _mutated(self) -> bytes:
        return self._corrupted(self._envelope(bytes))

    def _with_bad_fields(self) -> bytes:
        """A valid envelope with invalid fields."""
        return self._envelope(self.random.choice([self._replace_value, self._add_unknown, self._add_duplicate]))

    def _json(self, *values: Any) -> bytes:
        return json.dumps(self.random.choice(values)).encode()

    def _result(self, reply: bytes) -> bytes:
        return wire.encode_result(
            job_id="j", job="create_user", attempt=1, queue="arq:queue", done=self.random.random() < 0.5, reply=reply,
            enqueued_ms=1, started_ms=2, ended_ms=3,
        )  # fmt: skip

    def _corrupted(self, text: bytes | str) -> bytes:
        data = text.encode() if isinstance(text, str) else text
        for _ in range(self.random.choice([1, 1, 1, 2, 5])):
            data = self.random.choice(self._corruptions())(data)
        return data

    def _corruptions(self) -> list[Callable[[bytes], bytes]]:
        rare = (self._add_duplicate, self._add_unknown, self._cut, self._flip, self._insert)
        return [*[self._replace_value] * 3, *rare]

    def _places(self, data: bytes, text: bytes) -> list[int]:
        return [at for at in range(len(data)) if data.startswith(text, at)]

    def _replace_value(self, data: bytes) -> bytes:
        if not (places := self._places(data, b":")):
            return data
        at = self.random.choice(places) + 1
        end = min((found for mark in b",}" if (found := data.find(mark, at)) >= 0), default=len(data))
        return data[:at] + self._constant() + data[end:]

    def _add_duplicate(self, data: bytes) -> bytes:
        """Add a member that may exist already."""
        names = [b'"f"', b'"k"', b'"et"', b'"user_id"', b'"username"', b'"r"', b'"s"', b'"at"', b'"job"']
        return data.replace(b"{", b"{" + self.random.choice(names) + b":" + self._constant() + b",", 1)

    def _add_unknown(self, data: bytes) -> bytes:
        name = self.random.choice([MARKER, EMAIL, "", "\\u0000", "__class__", "x" * 3000]).encode()
        at = self.random.choice(self._places(data, b"{") or [0])
        return data[: at + 1] + b'"' + name + b'":' + self._constant() + b"," + data[at + 1 :]

    def _cut(self, data: bytes) -> bytes:
        return data[: self.random.randrange(len(data) + 1)]

    def _flip(self, data: bytes) -> bytes:
        if not data:
            return data
        at = self.random.randrange(len(data))
        return data[:at] + bytes([data[at] ^ 1 << self.random.randrange(8)]) + data[at + 1 :]

    def _insert(self, data: bytes) -> bytes:
        at = self.random.randrange(len(data) + 1)
        text = self.random.choice([self._noise(), self.random.choice(string.printable).encode(), self._constant()])
        return data[:at] + text + data[at:]


def generate(make: Callable[[], bytes], count: int) -> Iterator[bytes]:
    """This many inputs of a kind."""
    return (make() for _ in range(count))

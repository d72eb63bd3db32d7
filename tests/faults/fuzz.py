"""Hostile input, made up from a seed: payloads, results, signs of life, letters, ids, files and keys of wrong types.

Whatever is a value in it holds the marker, so that a leak can be seen wherever it comes out.
"""

import json
import pickle
import random
import string
from collections.abc import Callable, Iterator
from typing import Any

from producers import wire

MARKER = "S3cret!Marker"
"""No log, error or answer may hold it. It is not a possible field name, for such names are shown."""
HASH = f"scrypt:32768:8:1${MARKER}${'0123456789abcdef' * 4}"
EMAIL = f"{MARKER}@example.com"
MOST_BYTES = 100_000

FIELDS: dict[str, dict[str, Any]] = {
    "create_user": {"email": EMAIL, "username": MARKER, "hashed_password": HASH},
    "update_user": {"user_id": 7, "changes": {"username": MARKER, "is_active": False}},
    "delete_user": {"user_id": 7},
    "create_post": {"author_id": 7, "title": MARKER, "content": MARKER},
    "update_post": {"post_id": 7, "changes": {"title": MARKER}},
    "delete_post": {"post_id": 7},
}

# Texts of JSON that stand for a value.
VALUES = (
    b"null", b"true", b"{}", b"[]", b'""', b"0", b"-1", b"7.5", b"1e400", b"-1e400", b"NaN", b"Infinity", b"-Infinity",
    b"9223372036854775807", b"9223372036854775808", b"-9223372036854775809", b"1" * 400, b"1" * 5000,
    b"0." + b"1" * 400,
    b'"\\u0000"', b'"a\\u0000b"', b'"\\ud800"', b'"\\udfff\\ud800"', b'"\xed\xa0\x80"', b'"\xff"', b'"\x00"', b"01",
    b'"' + MARKER.encode() + b'"', b'"' + b"x" * 70_000 + b'"', b"[" * 150 + b"]" * 150, b"[" * 5000,
    b'{"a":' * 180 + b"1" + b"}" * 180, b'{"' + MARKER.encode() + b'":1}', b'"2020-01-01"', b"'single'", b"// no",
)  # fmt: skip
CODES = ("conflict", "failed", "cancelled", MARKER, "", "\x1b[2J", "x" * 10_000)


class Reach:
    """What a pickle that is loaded would do."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, (f"raise SystemExit({MARKER!r})",))


class Fuzz:
    """All of it, from one seed.

    Args:
        seed: repeats what it made.
    """

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)  # noqa: S311  # repeatable, not secret

    def payload(self) -> bytes:
        """Something in the place of a job's envelope. It rarely is one."""
        return self._one_of(self._random, self._pickled, self._odd, *[self._mutated] * 3, *[self._misfilled] * 6)

    def result(self) -> bytes:
        """Something in the place of a job's result."""
        reply = self._json({"code": self.chance.choice(CODES), "detail": MARKER}, {"id": 7, "email": EMAIL}, [MARKER])
        return self._one_of(self._random, self._pickled, lambda: self._spoiled(self._result(reply)), self._odd)

    def beat(self) -> bytes:
        """Something in the place of a worker's sign of life."""
        numbers = (0, 1, -1, 7.5, 1e308, -1e308, 2**63, 2**64, 10**300, 1_700_000_000, MARKER, None, "nan", "inf", True)
        beat = {name: self.chance.choice(numbers) for name in ("at", "running", "held", "concurrency")}
        return self._one_of(self._random, lambda: json.dumps(beat).encode(), lambda: self._spoiled(json.dumps(beat)))

    def letter(self) -> bytes:
        """Something in the place of what is known of a death."""
        beat = {
            "job": self.chance.choice(["create_user", "\x1b]0;x\x07", "", "x" * 5000]),
            "code": self.chance.choice(["failed", "\u202e", "\n\n", 7, None]),
            "detail": self.chance.choice(["why", "\x00\x1b[31m", "\U0001f4a5" * 400, {}, "[red]no[/nothing]"]),
            "tries": self.chance.choice([1, -1, 10**30, 2**63, "1", None, 1.5]),
            "enqueued_ms": self.chance.choice([1, -1, 10**30, -(10**18), 253402300800000, None]),
            "worker": self.chance.choice(["host:1", "\ufeff", None]),
        }
        return self._one_of(self._random, lambda: json.dumps(beat).encode(), lambda: self._spoiled(json.dumps(beat)))

    def job_id(self) -> bytes:
        """Something in the place of an id. A text in the form of an id holds no marker: ids are shown."""
        number = b"%d" % self.chance.randrange(10**9)
        secret = b" " + MARKER.encode()
        ends = (b"", b"@k", b"@", b"@@", b"@k@k", b"@" + number, b"\x00", b"\n", b"\xff\xfe", b"\xed\xa0\x80", b"{}",
                b"\x1b[2J", "\u202e\U0001f4a5".encode(), b"x" * 300, b"x" * 5000, b"[red]", b"\\x", b"*", b"%s", b"$1",
                secret, secret + b"@k", b"@" + secret)  # fmt: skip
        return self.chance.choice((b"", b"-", b".", b"@", b" ", b"j")) + number + self.chance.choice(ends)

    def score(self) -> float:
        """When a job is due: mostly now, in any notation."""
        past = (0.0, 1.0, -1.0, 0.1, 5e-324, -1e308, float("-inf"), 1.7e12)
        never = (1e14, 1e15, 1e15 + 1, 1e16, 2.0**63, 1e308, float("inf"))
        return self.chance.choice(past if self.chance.random() < 0.9 else never)

    def line(self) -> bytes:
        """Something in the place of a line of a file that is loaded."""
        job = self.chance.choice([*FIELDS, MARKER])
        options: dict[str, Any] = self.chance.choice(
            [{}, {"defer_by": 1e400}, {"ordering_key": MARKER + " "}, {"idempotency_key": 7}]
        )
        line = json.dumps({"job": job, **FIELDS.get(job, {}), **options})
        return self._one_of(self._random, lambda: self._spoiled(line), lambda: line.encode("utf-16"), self._odd)

    def row(self) -> bytes:
        """Something in the place of a row of CSV."""
        cells = [self.chance.choice([MARKER, '"', '""', "7", "", "\x00", "9" * 30, "x" * 9000, "\r"]) for _ in range(3)]
        return self._one_of(self._random, lambda: ",".join(cells).encode(), lambda: b"delete_user," + self._random())

    def wrong_type(self) -> tuple[str | int | bytes, ...]:
        """A command, its key left out, that makes a key of a type that is not expected there."""
        return self.chance.choice(
            [("LPUSH", MARKER), ("HSET", MARKER, 1), ("SADD", MARKER), ("XADD", "*", "a", MARKER), ("ZADD", 1, MARKER)]
        )

    # How these are made.

    def _one_of(self, *makers: Callable[[], bytes]) -> bytes:
        return self.chance.choice(makers)()[:MOST_BYTES]

    def _random(self) -> bytes:
        return self.chance.randbytes(self.chance.choice([0, 1, 2, 7, 40, 300]))

    def _pickled(self) -> bytes:
        thing = self.chance.choice([Reach(), {"f": "create_user", "k": FIELDS["create_user"]}, MARKER])
        return pickle.dumps(thing, protocol=self.chance.randrange(6))

    def _odd(self) -> bytes:
        return self.chance.choice(VALUES)

    def _envelope(self, change: Callable[[bytes], bytes]) -> bytes:
        job = self.chance.choice(list(FIELDS))
        headers = self.chance.choice([None, {"producer": "p"}, {"traceparent": "00-" + MARKER}, {MARKER: MARKER}])
        fields = change(json.dumps(FIELDS[job]).encode())
        in_json = wire.headers_json(headers) if headers else b""
        return wire.encode(job, fields, enqueue_time_ms=1_700_000_000_000, headers=in_json)

    def _mutated(self) -> bytes:
        return self._spoiled(self._envelope(bytes))

    def _misfilled(self) -> bytes:
        """An envelope as it should be, around fields that are not."""
        return self._envelope(self.chance.choice([self._value, self._extra, self._twice]))

    def _json(self, *things: Any) -> bytes:
        return json.dumps(self.chance.choice(things)).encode()

    def _result(self, reply: bytes) -> bytes:
        return wire.encode_result(
            job_id="j", job="create_user", attempt=1, queue="arq:queue", done=self.chance.random() < 0.5, reply=reply,
            enqueued_ms=1, started_ms=2, ended_ms=3,
        )  # fmt: skip

    def _spoiled(self, text: bytes | str) -> bytes:
        data = text.encode() if isinstance(text, str) else text
        for _ in range(self.chance.choice([1, 1, 1, 2, 5])):
            data = self.chance.choice(self._spoilers())(data)
        return data

    def _spoilers(self) -> list[Callable[[bytes], bytes]]:
        return [self._value, self._value, self._value, self._twice, self._extra, self._cut, self._flip, self._insert]

    def _places(self, data: bytes, what: bytes) -> list[int]:
        return [at for at in range(len(data)) if data.startswith(what, at)]

    def _value(self, data: bytes) -> bytes:
        """Another value after some name."""
        if not (places := self._places(data, b":")):
            return data
        at = self.chance.choice(places) + 1
        end = min((found for mark in b",}" if (found := data.find(mark, at)) >= 0), default=len(data))
        return data[:at] + self._odd() + data[end:]

    def _twice(self, data: bytes) -> bytes:
        """A name that comes twice."""
        names = [b'"f"', b'"k"', b'"et"', b'"user_id"', b'"username"', b'"r"', b'"s"', b'"at"', b'"job"']
        return data.replace(b"{", b"{" + self.chance.choice(names) + b":" + self._odd() + b",", 1)

    def _extra(self, data: bytes) -> bytes:
        """An unknown name."""
        name = self.chance.choice([MARKER, EMAIL, "", "\\u0000", "__class__", "x" * 3000]).encode()
        at = self.chance.choice(self._places(data, b"{") or [0])
        return data[: at + 1] + b'"' + name + b'":' + self._odd() + b"," + data[at + 1 :]

    def _cut(self, data: bytes) -> bytes:
        return data[: self.chance.randrange(len(data) + 1)]

    def _flip(self, data: bytes) -> bytes:
        if not data:
            return data
        at = self.chance.randrange(len(data))
        return data[:at] + bytes([data[at] ^ 1 << self.chance.randrange(8)]) + data[at + 1 :]

    def _insert(self, data: bytes) -> bytes:
        at = self.chance.randrange(len(data) + 1)
        what = self.chance.choice([self._random(), self.chance.choice(string.printable).encode(), self._odd()])
        return data[:at] + what + data[at:]


def many(make: Callable[[], bytes], count: int) -> Iterator[bytes]:
    """So many of a kind."""
    return (make() for _ in range(count))

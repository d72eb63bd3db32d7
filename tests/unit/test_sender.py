"""When a sender repeats a call, and what its answers and errors mean."""

from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    InvalidResponse,
    OutOfMemoryError,
    ReadOnlyError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from producers import (
    DeleteUser,
    EnqueueError,
    EnqueueUnconfirmed,
    IdempotencyConflict,
    RedisRefused,
    RedisUnavailable,
    Request,
    _sender,
    keys,
)
from producers._script import NotSent

FRESH = Request(DeleteUser(user_id=1)).encode()
KEYED = Request(DeleteUser(user_id=2), idempotency_key="a").encode()


def not_sent(cause: Exception) -> NotSent:
    error = NotSent(str(cause))
    error.__cause__ = cause
    return error


UNREACHABLE = not_sent(RedisConnectionError("connection refused"))
WRONG_PASSWORD = not_sent(AuthenticationError("invalid password"))
LOST = RedisTimeoutError("no answer")


class Script:
    """A stand-in for the script: takes one step a call, and repeats the last one."""

    def __init__(self, *steps: list[int] | Exception) -> None:
        self._steps = list(steps)
        self.arguments: list[list[str | bytes | int]] = []

    async def __call__(self, _redis: Redis, _keys: list[str], args: list[str | bytes | int]) -> Any:
        self.arguments.append(args)
        step = self._steps.pop(0) if len(self._steps) > 1 else self._steps[0]
        if isinstance(step, Exception):
            raise step
        return step


@pytest.fixture
def send(monkeypatch: pytest.MonkeyPatch, redis: Redis) -> Any:
    """Sends the two jobs through a script of these steps."""
    monkeypatch.setattr(_sender, "FIRST_DELAY_SECONDS", 0.001)

    async def run(*steps: list[int] | Exception) -> tuple[list[bool | EnqueueError], Script]:
        script = Script(*steps)
        monkeypatch.setattr(_sender, "ENQUEUE", script)
        made = _sender.Sender(redis, keys.DEFAULT_QUEUE, max_queued=0, timeout_seconds=0.05)
        return await made.send([FRESH, KEYED]), script

    return run


@pytest.mark.parametrize("error", [UNREACHABLE, BusyLoadingError("loading"), LOST, InvalidResponse("HTTP")])
async def test_a_failed_call_is_repeated_with_the_same_ids(send: Any, error: Exception) -> None:
    answers, script = await send(error, error, [1, 1])

    assert answers == [True, True]
    assert len(script.arguments) == 3
    assert script.arguments[0] == script.arguments[1] == script.arguments[2]


async def test_a_new_id_that_is_known_after_a_lost_answer_was_accepted_by_this_call(send: Any) -> None:
    answers, _ = await send(LOST, [0, 0])

    # The idempotency key of the other job may have been used before.
    assert answers == [True, False]


async def test_a_known_id_without_a_lost_answer_was_known_before(send: Any) -> None:
    answers, _ = await send(UNREACHABLE, [0, 0])

    assert answers == [False, False]


@pytest.mark.parametrize(
    ("steps", "kind"),
    [
        ([UNREACHABLE], RedisUnavailable),
        ([BusyLoadingError("loading")], RedisUnavailable),
        ([LOST], EnqueueUnconfirmed),
        ([InvalidResponse("HTTP")], EnqueueUnconfirmed),
        ([LOST, UNREACHABLE], EnqueueUnconfirmed),
        ([UNREACHABLE, LOST], EnqueueUnconfirmed),
        ([WRONG_PASSWORD], RedisRefused),
        ([OutOfMemoryError("maxmemory")], RedisRefused),
        ([UNREACHABLE, ReadOnlyError("replica")], RedisRefused),
        ([LOST, OutOfMemoryError("maxmemory")], EnqueueUnconfirmed),
        ([LOST, UNREACHABLE, WRONG_PASSWORD], EnqueueUnconfirmed),
    ],
)
async def test_the_error_claims_no_more_than_is_known(
    send: Any, steps: list[Exception], kind: type[EnqueueError]
) -> None:
    answers, _ = await send(*steps)

    assert [type(answer) for answer in answers] == [kind, kind]


async def test_an_unconfirmed_job_can_be_repeated_under_the_key_of_the_error(send: Any) -> None:
    (fresh, keyed), _ = await send(LOST)

    assert fresh.idempotency_key == FRESH.job_id.partition("@")[0]
    assert (keyed.idempotency_key, keyed.job_id) == ("a", "a@user:2")
    assert f"idempotency_key={fresh.idempotency_key!r}" in str(fresh)


async def test_a_refused_call_is_not_repeated(send: Any) -> None:
    _, script = await send(OutOfMemoryError("maxmemory"))

    assert len(script.arguments) == 1


async def test_a_conflict_is_a_conflict_even_after_a_lost_answer(send: Any) -> None:
    answers, _ = await send(LOST, [1, -1])

    assert answers[0] is True
    assert isinstance(answers[1], IdempotencyConflict)

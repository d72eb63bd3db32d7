"""Do the queue's scripts do what the plain model does, whatever is asked of them in whatever order?

Hypothesis makes up what producers, workers, operators and mischance do, on the in-memory Redis and on the real server.
After every step, all that Redis holds is what the model holds. The tests of the test take something away from the
scripts and want the difference to be found.
"""

import asyncio
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from fakeredis import FakeAsyncRedis
from hypothesis import HealthCheck, Phase, Verbosity, settings
from hypothesis.stateful import (
    run_state_machine_as_test,
)
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from producers import _script as producer_scripts
from producers._redis import connect
from producers._script import Script
from tests.faults.queue_machine import QueueMachine
from tests.faults.queue_model import (
    QUEUE,
)
from worker.embedded import ValkeyServer
from worker.queue import scripts

STEPS = 50
EXAMPLES = int(os.environ.get("QUEUE_MODEL_EXAMPLES", "0"))
"""How many runs of so many steps there are on each server; 0: as many as take some seconds."""


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def memory(runner: asyncio.Runner) -> Iterator[Redis]:
    client = FakeAsyncRedis()
    yield client
    runner.run(client.aclose())


@pytest.fixture(scope="module")
def server(runner: asyncio.Runner) -> Iterator[Redis]:
    with tempfile.TemporaryDirectory(prefix="queue-model-", dir="/tmp") as folder, ValkeyServer(Path(folder)) as valkey:
        client = connect(valkey.url, queue=QUEUE)
        yield client
        runner.run(client.aclose())
        runner.run(client.connection_pool.disconnect())


def config(examples: int, **options: Any) -> settings:
    defaults: dict[str, Any] = {
        "max_examples": examples,
        "stateful_step_count": STEPS,
        "deadline": None,
        "derandomize": False,
        "print_blob": True,
        "phases": set(Phase) - {Phase.explain},
        "suppress_health_check": list(HealthCheck),
    }
    return settings(**{**defaults, **options})


def run(machine: Callable[[], QueueMachine], how: settings) -> None:
    # Any callable works, although its types differ.
    run_state_machine_as_test(cast("type[QueueMachine]", machine), settings=how)


@pytest.mark.timeout(3600)  # making a failure small takes its time, and there may be many runs
@pytest.mark.parametrize(("name", "examples"), [("memory", 50), ("server", 130)])
def test_the_scripts_do_what_the_model_does(
    name: str, examples: int, runner: asyncio.Runner, request: pytest.FixtureRequest
) -> None:
    redis = request.getfixturevalue(name)
    run(lambda: QueueMachine(redis, runner.run), config(EXAMPLES or examples))


# The tests of the test.

# What is taken away from the scripts, and what stands there instead.
MUTATIONS = {
    "the tokens are not compared": (b"redis.pcall('GET', lease_key(id)) == token", b"true"),
    "no job is parked": (b"if not key then return true end", b"if true then return true end"),
    "the place is lost while parked": (
        b"redis.pcall('ZADD', parked, score",
        b"redis.pcall('ZADD', parked, 1",
    ),
    "no parked job is released": (
        b"local function unpark_next(queue, key)",
        b"local function unpark_next(queue, key) if true then return end",
    ),
    "the last is let on": (b"'ZPOPMIN', parked", b"'ZPOPMAX', parked"),
    "tries are not counted": (b"redis.pcall('INCR', attempts_key(id))", b"1"),
    "what is given back counts": (b"if redis.call('DECR', attempts_key(id)) < 0 then", b"if false then"),
    "what is given back is not due": (b"  redis.call('ZADD', queue, score, id)\n  -- At least 0", b"  -- At least 0"),
    "a retry keeps its lease": (
        b"    redis.call('DEL', lease_key(id))\n    redis.call('ZADD', queue, as_score(now + d",
        b"    redis.call('ZADD', queue, as_score(now + d",
    ),
    "the dead lose their payloads": (
        b"redis.call('RENAME', job_key(id), dead_payload_key(id))",
        b"redis.call('DEL', job_key(id))",
    ),
    "a key waits for who was taken out": (b"if holder and redis.call('ZSCORE', queue, holder) then", b"if holder then"),
    "the known are accepted again": (b"local some_known = jobs > 0", b"local some_known = false"),
    "a call knows not what it has accepted": (b"    accepted[id] = true\n", b""),
    "two jobs have one place": (b"      last_us = last_us + 1\n", b""),
    "the clock steps back": (
        b"if raw_us >= now then return raw_us, now end",
        b"if true then return raw_us, now end",
    ),
}


@contextmanager
def rewritten(old: bytes, new: bytes) -> Iterator[None]:
    """Every script that has these words has others."""
    there = [
        each for module in (scripts, producer_scripts) for each in vars(module).values() if isinstance(each, Script)
    ]
    sources = {script: script._source for script in there if old in script._source}
    assert sources, f"no script has {old!r}: the mutation has to follow the scripts"
    for script, source in sources.items():
        script.__init__(source.replace(old, new))  # type: ignore[misc]  # the same object, another text
    yield
    for script, source in sources.items():
        script.__init__(source)  # type: ignore[misc]


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_without(mutation: str, runner: asyncio.Runner, memory: Redis) -> None:
    quick = config(100, phases=[Phase.generate], derandomize=True, database=None, verbosity=Verbosity.quiet)

    with rewritten(*MUTATIONS[mutation]), pytest.raises((AssertionError, LookupError, ResponseError)):
        run(lambda: QueueMachine(memory, runner.run), quick)

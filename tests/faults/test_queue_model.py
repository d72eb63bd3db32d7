"""The queue's scripts do what the model does, for any sequence of actions.

Hypothesis generates actions of producers, workers, operators and faults, on an in-memory Redis and on a real server.
After every step, Redis must hold what the model holds. Mutations of the scripts show that differences are found.
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
from hypothesis.stateful import run_state_machine_as_test
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from producers import _script as producer_scripts
from producers._redis import connect
from producers._script import Script
from tests.faults.queue_machine import QueueMachine
from tests.faults.queue_model import QUEUE
from worker.embedded import ValkeyServer
from worker.queue import scripts

STEPS = 50
EXAMPLES = int(os.environ.get("QUEUE_MODEL_EXAMPLES", "0"))
"""The number of runs on each server; 0: a number that takes a few seconds."""


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


def create_settings(examples: int, **options: Any) -> settings:
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


def run_machine(machine: Callable[[], QueueMachine], options: settings) -> None:
    # Any callable works, in spite of the type.
    run_state_machine_as_test(cast("type[QueueMachine]", machine), settings=options)


@pytest.mark.timeout(3600)  # shrinking a failure takes long, and there may be many runs
@pytest.mark.parametrize(("name", "examples"), [("memory", 50), ("server", 130)])
def test_the_scripts_match_the_model(
    name: str, examples: int, runner: asyncio.Runner, request: pytest.FixtureRequest
) -> None:
    redis = request.getfixturevalue(name)
    run_machine(lambda: QueueMachine(redis, runner.run), create_settings(EXAMPLES or examples))


# Text in the scripts and its replacement.
MUTATIONS = {
    "the tokens are not compared": (b"redis.pcall('GET', lease_key(id)) == token", b"true"),
    "no job is parked": (b"if not key then return true end", b"if true then return true end"),
    "a parked job loses its place": (b"redis.pcall('ZADD', parked, score", b"redis.pcall('ZADD', parked, 1"),
    "no job is unparked": (
        b"local function unpark_next(queue, key)",
        b"local function unpark_next(queue, key) if true then return end",
    ),
    "the last parked job is next": (b"'ZPOPMIN', parked", b"'ZPOPMAX', parked"),
    "attempts are not counted": (b"redis.pcall('INCR', attempts_key(id))", b"1"),
    "a release counts an attempt": (b"if redis.call('DECR', attempts_key(id)) < 0 then", b"if false then"),
    "a released job is not due": (b"  redis.call('ZADD', queue, score, id)\n  -- At least 0", b"  -- At least 0"),
    "a retry keeps its lease": (
        b"    redis.call('DEL', lease_key(id))\n    redis.call('ZADD', queue, as_score(now + d",
        b"    redis.call('ZADD', queue, as_score(now + d",
    ),
    "a dead letter loses its payload": (
        b"redis.call('RENAME', job_key(id), dead_payload_key(id))",
        b"redis.call('DEL', job_key(id))",
    ),
    "a key waits for a removed job": (b"if holder and redis.call('ZSCORE', queue, holder) then", b"if holder then"),
    "a known job is accepted again": (b"local some_known = jobs > 0", b"local some_known = false"),
    "a call accepts a job twice": (b"    accepted[id] = true\n", b""),
    "two jobs have one score": (b"      last_us = last_us + 1\n", b""),
    "the clock steps back": (b"if raw_us >= now then return raw_us, now end", b"if true then return raw_us, now end"),
}


@contextmanager
def rewritten(old: bytes, new: bytes) -> Iterator[None]:
    """Replace text in every script that has it."""
    values = [*vars(scripts).values(), *vars(producer_scripts).values()]
    sources = {value: value._source for value in values if isinstance(value, Script) and old in value._source}
    assert sources, f"no script has {old!r}: the mutation must follow the scripts"
    for script, source in sources.items():
        script.__init__(source.replace(old, new))  # type: ignore[misc]  # the same object, another text
    yield
    for script, source in sources.items():
        script.__init__(source)  # type: ignore[misc]


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_mutation_is_found(mutation: str, runner: asyncio.Runner, memory: Redis) -> None:
    options = create_settings(100, phases=[Phase.generate], derandomize=True, database=None, verbosity=Verbosity.quiet)

    with rewritten(*MUTATIONS[mutation]), pytest.raises((AssertionError, LookupError, ResponseError)):
        run_machine(lambda: QueueMachine(memory, runner.run), options)

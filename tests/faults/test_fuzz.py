"""Hostile input in Redis, in files and on the command line does no harm and does not leak.

It is generated from a seed (`FAULTS_SEED` repeats one) and resembles valid input.
"""

import json
import os
import shutil
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NoReturn, cast

import pytest
import redis as blocking
import structlog
from pydantic import ValidationError
from pydantic_core import to_json
from typer.testing import CliRunner

from producers import Deleted, JobError, JobNotFound, arq_wire, ids, keys, wire
from producers._redis import connect
from producers._result_waiter import ResultWaiter
from producers.cli.app import main as producers_main
from producers.handle import JobHandle
from producers.messages import problems
from tests.acceptance.commands import HASH as GOOD_HASH
from tests.acceptance.commands import WORKER, Running, eventually
from tests.faults.fuzzer import MARKER, MAX_BYTES, Fuzzer, generate
from tests.waiting import PATIENCE_SECONDS
from worker.cli import app
from worker.database.session import create_engine, create_sessions
from worker.embedded import PostgresServer, ValkeyServer
from worker.engine.batch import Batches
from worker.engine.context import Runtime
from worker.engine.executor import Executor
from worker.engine.job_log import JobLog
from worker.engine.settler import Settler, WorkerIdentity
from worker.engine.signals import Signals
from worker.jobs import REGISTRY
from worker.model import settlement
from worker.model.job import Attempt, ClaimedJob, Lease, PayloadState, read_job
from worker.model.log_context import safe_job_id
from worker.model.outcome import Dead, Done, Outcome, Rejected
from worker.model.settlement import Settlement
from worker.queue.leases import Leases
from worker.queue.queue import Queue
from worker.views.payload_summary import summarize_payload

PAYLOADS = int(os.environ.get("FUZZ_PAYLOADS", "5000"))
Count = Callable[[str, object], None]
"""Records the amount of input of a kind: the long form adds them up."""
Command = Callable[..., tuple[int, str, str]]
QUEUE = keys.DEFAULT_QUEUE
SLOWEST_SECONDS = 1.0
NEVER_MS = 1e13
"""A job with a higher score is never due (the year 2286)."""
FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}

pytestmark = pytest.mark.timeout(max(600, PAYLOADS / 50))


@pytest.fixture
def fuzz(seed: int) -> Fuzzer:
    return Fuzzer(seed)


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, str]]:
    """The environment variables for a PostgreSQL and a Valkey."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-", dir="/tmp"))
    folder.chmod(0o711)  # PostgreSQL's user must be able to enter it
    try:
        with PostgresServer(folder / "postgres", settings=FAST) as postgres, ValkeyServer(folder / "valkey") as valkey:
            yield {"DATABASE_URL": postgres.url, "REDIS_URL": valkey.url}
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def redis(servers: dict[str, str]) -> Iterator[Any]:
    with closing(blocking.Redis.from_url(servers["REDIS_URL"])) as client:
        client.flushall()
        yield client


def parse_strictly(text: str | bytes) -> Any:
    """Parse JSON without the constants that Python adds to it."""

    def refuse(constant: str) -> NoReturn:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


def assert_no_marker(text: str | bytes, source: object = "") -> None:
    """The text holds no value of the input."""
    checked = text if isinstance(text, str) else text.decode("utf-8", "backslashreplace")
    at = checked.find(MARKER)
    assert at < 0, f"{checked[max(0, at - 300) : at + 100]!r} of {source!r}"


# In one process: everything but the database.


def is_refused(read: Callable[[bytes], object], data: bytes) -> bool:
    """Whether the data is refused with the documented error, which holds no value."""
    try:
        read(data)
    except wire.WireError as error:
        assert_no_marker("".join(traceback.format_exception(error)), data)
        return True
    return False


class ValidatingRunner:
    """Validates messages as a transaction does before it begins."""

    async def run(self, job: ClaimedJob) -> Attempt:
        return Attempt(job, self._result(job))

    async def record(self, job: ClaimedJob, outcome: Rejected | Dead) -> Attempt:
        return Attempt(job, outcome)

    @staticmethod
    def _result(job: ClaimedJob) -> Outcome:
        if (job_type := REGISTRY.get(job.name)) is None:
            return Dead("unknown_job", "unknown job")
        try:
            message = job_type.message.model_validate(job.fields)
        except ValidationError as error:
            wire.digest(job.name, to_json(job.fields))
            return Rejected("invalid", "; ".join(problems(error)))
        assert_no_marker(f"{message} {message!r}", job.fields)
        return Done(json.dumps(wire.digest(job.name, wire.fields_json(message)).hex()))


class RecordingSettler(Settler):
    """Keeps settlements instead of sending them."""

    def __init__(self) -> None:
        queue = Queue(cast("Any", None), QUEUE, lease_ms=1, result_ms=1, max_payload_bytes=1)
        super().__init__(queue, Leases(queue), Signals(), WorkerIdentity("w", QUEUE))
        self.settlements: list[Settlement] = []

    def _add(self, item: Settlement) -> None:
        self.settlements.append(item)


def create_executor(settler: Settler) -> Executor:
    """An executor without a database."""
    engine = create_engine("postgresql://localhost/none", pool_size=1)  # opens nothing
    sessions, runner = create_sessions(engine), ValidatingRunner()
    batches = Batches(runner, sessions, REGISTRY, timeout_seconds=1)
    runtime = Runtime(engine, sessions, runner, batches, {}, JobLog(REGISTRY))
    return Executor(runtime, settler, Signals(), max_tries=5, batches=False)


def claim(fuzz: Fuzzer, payload: bytes) -> ClaimedJob:
    lease = Lease(fuzz.job_id(), b"token", repr(fuzz.score()).encode())
    attempt = fuzz.random.choice([1, -7])
    return read_job(lease, payload, PayloadState.FETCHED, attempt, remembered_since_ms=0)


def assert_settled(job: ClaimedJob, item: Settlement) -> None:
    """The result and the dead letter are valid and hold no marker."""
    assert isinstance(item, settlement.Complete | settlement.Bury)
    result = wire.decode_result(item.result)
    if ids.is_job_id(job.job_id):
        assert_no_marker(item.result, job.job_id)
    done = isinstance(item, settlement.Complete) and result.error is None
    assert (result.k, result.a, result.s) == ({}, [], done)
    if isinstance(item, settlement.Bury):
        assert_no_marker(item.record)
        parse_strictly(item.record)


async def test_no_payload_breaks_its_reader_or_leaks_its_values(fuzz: Fuzzer, record_property: Count) -> None:
    done, slowest = 0, 0.0
    settler = RecordingSettler()
    with structlog.testing.capture_logs() as lines:
        executor = create_executor(settler)
        for payload in generate(fuzz.payload, PAYLOADS * 6 // 10):
            began = time.thread_time()
            is_refused(wire.decode, payload)
            is_refused(arq_wire.loads, payload)
            assert_no_marker(json.dumps(summarize_payload(payload)), payload)
            job = claim(fuzz, payload)
            assert safe_job_id(job.lease.job_id) is None or MARKER.encode() not in job.lease.job_id
            await executor.run([job])
            assert_settled(job, settler.settlements[-1])
            done += bool(lines and lines[-1]["event"] == "job_done")
            slowest = max(slowest, time.thread_time() - began)
    assert len(settler.settlements) == len(lines) > 0
    for line in lines:
        assert_no_marker(to_json(line, inf_nan_mode="strings"))
    assert {line["event"] for line in lines} == {"job_done", "job_rejected", "job_dead"}
    assert done < len(lines) / 2, "too much of the input was harmless"
    assert slowest < SLOWEST_SECONDS
    record_property("payloads", len(lines))


async def test_no_result_breaks_its_waiter(
    fuzz: Fuzzer, redis: Any, servers: dict[str, str], record_property: Count
) -> None:
    results = list(generate(fuzz.result, max(200, PAYLOADS // 25)))
    record_property("results", len(results))
    client = connect(servers["REDIS_URL"], queue=QUEUE)
    waiting = ResultWaiter(client, QUEUE)
    with redis.pipeline(transaction=False) as pipeline:
        for number, result in enumerate(results):
            pipeline.set(keys.result(f"r{number}"), result)
        pipeline.execute()
    for number, result in enumerate(results):
        if is_refused(wire.decode_result, result):
            is_refused(arq_wire.loads, result)
        else:
            to_json(wire.decode_result(result).model_dump())
        job = JobHandle(f"r{number}", Deleted, accepted=True, redis=client, queue=QUEUE, results=waiting)
        with pytest.raises((JobError, JobNotFound)):  # no result holds a reply of this type
            await job.result(PATIENCE_SECONDS)
        await job.status()
    await waiting.close()
    await client.aclose()
    await client.connection_pool.disconnect()


# In a worker process.


class MixedJobs:
    """Puts good and hostile jobs into the queue as a raw client, and remembers them."""

    def __init__(self, fuzz: Fuzzer, redis: Any) -> None:
        self.fuzz, self.redis = fuzz, redis
        self.good: list[bytes] = []
        self.hostile: dict[bytes, float] = {}

    def write(self, hostile: int, *, good_every: int) -> None:
        with self.redis.pipeline(transaction=False) as pipeline:
            for number in range(hostile):
                self._write_hostile(pipeline)
                if number % good_every == 0:
                    self._write_good(pipeline)
                if number % 200 == 199:
                    self._corrupt_shared_keys(pipeline)
                    pipeline.execute()
            pipeline.execute()

    def _corrupt_shared_keys(self, pipeline: Any) -> None:
        """Write to keys that all jobs share; existing data is kept."""
        for key in ("arq:abort", keys.dead(QUEUE), keys.dead_letters(QUEUE), keys.parked(QUEUE, "k")):
            pipeline.set(key, MARKER, nx=True)
        numbers = ["nan", "-nan", "inf", "-inf", "1e300", "1e17", "0x7f", "-1", MARKER, ""]
        raw, now = self.fuzz.random.choices(numbers, k=2)
        pipeline.hset(keys.clock(QUEUE), mapping={"raw": raw, "now": now})

    def _write_good(self, pipeline: Any) -> None:
        number = len(self.good)
        fields = {"email": f"u{number}@example.com", "username": f"u{number}", "hashed_password": GOOD_HASH}
        payload = wire.encode("create_user", json.dumps(fields).encode(), enqueue_time_ms=1)
        self.good.append(b"good%d%s" % (number, (b"", b"@k", b"@g")[number % 3]))
        pipeline.set(b"arq:job:" + self.good[-1], payload)
        pipeline.zadd(QUEUE, {self.good[-1]: 1.6e12 + number})

    def _write_hostile(self, pipeline: Any) -> None:
        chance = self.fuzz.random
        job_id, score = self.fuzz.job_id(), self.fuzz.score()
        self.hostile[job_id] = score
        for prefix in ("arq:retry:", "arq:in-progress:", "arq:result:"):
            if chance.random() < 0.02:
                self._write_wrong_type(pipeline, prefix.encode() + job_id)
        if chance.random() < 0.02:
            number = chance.choice([b"x", b"-9223372036854775808", b"9223372036854775807", b"9" * 30, b"1.5"])
            pipeline.set(b"arq:retry:" + job_id, number)
        if (draw := chance.random()) < 0.03:
            self._write_wrong_type(pipeline, b"arq:job:" + job_id)
        elif draw < 0.95:
            pipeline.set(b"arq:job:" + job_id, self.fuzz.payload())
        pipeline.zadd(QUEUE, {job_id: score})

    def _write_wrong_type(self, pipeline: Any, key: bytes) -> None:
        command, *arguments = self.fuzz.wrong_type()
        pipeline.delete(key)
        pipeline.execute_command(command, key, *arguments)

    def count_unsettled(self) -> int:
        """The number of jobs that are due or claimed."""
        # The score of a claimed job is the end of its lease, far below that of a job that is never due.
        return int(self.redis.zcount(QUEUE, "-inf", NEVER_MS))

    def results(self, job_ids: list[bytes]) -> dict[bytes, bytes | None]:
        found: dict[bytes, bytes | None] = {}
        for start in range(0, len(job_ids), 500):
            part = job_ids[start : start + 500]
            found.update(zip(part, self.redis.mget([b"arq:result:" + job_id for job_id in part]), strict=True))
        return found


def test_no_hostile_job_harms_the_worker_or_other_jobs(
    fuzz: Fuzzer, redis: Any, servers: dict[str, str], record_property: Count
) -> None:
    count = PAYLOADS * 3 // 10
    record_property("payloads", count)
    jobs = MixedJobs(fuzz, redis)
    redis.hset(keys.workers(QUEUE), mapping={fuzz.job_id(): fuzz.heartbeat() for _ in range(50)})
    limits = {"WORKER_MAX_PAYLOAD_BYTES": str(MAX_BYTES // 2), "WORKER_LOG_LEVEL": "debug"}
    with Running((*WORKER, "run"), {**servers, **limits}) as worker:
        worker.wait_for("worker_started")
        jobs.write(count, good_every=10)

        seconds = PATIENCE_SECONDS + count / 50
        eventually(lambda: jobs.count_unsettled() == 0, seconds=seconds, hint=lambda: worker.output()[-2000:])

        # The first process is still running and stops normally.
        assert worker.process.poll() is None
        assert worker.stop() == 0
        output = worker.output()
    # Every good job is done.
    good = jobs.results(jobs.good)
    assert [job_id for job_id, result in good.items() if result is None or not wire.decode_result(result).s] == []
    # Every hostile job is settled or never due.
    due = {job_id for job_id, score in jobs.hostile.items() if score < NEVER_MS}
    hostile = jobs.results(list(jobs.hostile))
    assert [job_id for job_id in due if hostile[job_id] is None] == []
    assert set(redis.zrange(QUEUE, 0, -1)) == set(jobs.hostile) - due
    ended = [wire.decode_result(hostile[job_id] or b"") for job_id in due]
    assert sum(result.s for result in ended) < len(ended) / 2, "too much of the input was harmless"
    assert all(result.s or result.error is not None for result in ended)
    for prefix in (b"arq:in-progress:", b"arq:retry:", b"arq:job:"):
        left = {key.removeprefix(prefix) for key in redis.scan_iter(prefix + b"*", count=1000)}
        assert not left & due, f"{prefix!r} is left of {left & due}"
    # No output holds a value of them.
    assert_no_marker(output)
    assert "Traceback" not in output
    events = {parse_strictly(line)["event"] for line in output.splitlines()}
    assert not events & {"batch_fault", "executor_fault", "task_fault", "unhandled_error"}, output[-2000:]


# In commands.


def csv_file(fuzz: Fuzzer) -> bytes:
    header = fuzz.random.choice([b"job,user_id,username", b"job,user_id", b"user_id,job,content", fuzz.row()])
    return b"\n".join([header, *generate(fuzz.row, 100)])


@pytest.mark.usefixtures("redis")
@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_no_file_breaks_a_load(
    form: str, *, fuzz: Fuzzer, servers: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str], record_property: Count
) -> None:
    file = tmp_path / f"jobs.{form}"
    files = max(4, PAYLOADS // 2000)
    record_property("lines of files", 100 * files)
    for number in range(files):
        file.write_bytes(b"\n".join(generate(fuzz.line, 100)) if form == "jsonl" else csv_file(fuzz))
        options = ["--dry-run"] if number % 2 else ["--redis-url", servers["REDIS_URL"], "--queue", "fuzz"]

        code = producers_main(["load", str(file), *options])

        output = capfd.readouterr()
        assert code in {0, 1, 2}, output
        assert output.err
        for text in (output.out, output.err):
            assert_no_marker(text)
            assert "Traceback" not in text
            assert text.replace("\n", "").isprintable()


@pytest.fixture
def command(servers: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs `worker …` in this process; returns the exit code, the output and the errors."""
    for name, value in servers.items():
        monkeypatch.setenv(name, value)

    def run(*words: str) -> tuple[int, str, str]:
        result = CliRunner().invoke(app, list(words))
        assert result.exception is None or isinstance(result.exception, SystemExit), (words, result.exc_info)
        assert "Traceback" not in result.output
        return result.exit_code, result.stdout, result.stderr

    return run


@pytest.fixture
def format_for_people(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """A function after whose call the commands write for people."""

    def start() -> None:
        for module in ("dead", "status"):
            monkeypatch.setattr(f"worker.commands.{module}.for_people", lambda **_: True)

    return start


def assert_printable(text: str) -> None:
    """The text holds no control sequence."""
    assert text.strip()
    assert all(line.isprintable() for line in text.split("\n"))


def test_dead_letters_are_shown_and_invalid_ids_are_refused(
    fuzz: Fuzzer, redis: Any, command: Command, format_for_people: Callable[[], None], record_property: Count
) -> None:
    letters = {fuzz.job_id(): (fuzz.death_record(), fuzz.score()) for _ in range(max(200, PAYLOADS // 25))}
    record_property("dead letters", len(letters))
    redis.zadd(keys.dead(QUEUE), {job_id: died_ms for job_id, (_, died_ms) in letters.items()})
    redis.hset(keys.dead_letters(QUEUE), mapping={job_id: record for job_id, (record, _) in letters.items()})
    for job_id in letters:
        redis.set(b"arq:dead:" + job_id, fuzz.payload())

    code, listed, _ = command("dead", "list", "--limit", "100000")

    listed_letters = [parse_strictly(line) for line in listed.splitlines()]
    now_ms = time.time() * 1000
    assert code == 0
    assert len(listed_letters) == sum(died_ms <= now_ms for _, died_ms in letters.values())
    for letter in listed_letters[:20]:
        code, output, _ = command("dead", "show", "--", letter["id"])
        assert (code, parse_strictly(output)["id"]) == (0, letter["id"])
        assert_no_marker(json.dumps(parse_strictly(output)["payload"]))
    for job_id in [fuzz.job_id().replace(b"\0", b"") for _ in range(20)]:
        code, output, error = command("dead", "show", "--", os.fsdecode(job_id))
        assert code in {1, 2}
        assert output == ""
        assert error.isascii()
    format_for_people()
    assert_printable(command("dead", "list", "--limit", "100000")[1])
    for letter in listed_letters[:20]:
        assert_printable(command("dead", "show", "--payload", "--", letter["id"])[1])


def test_status_survives_hostile_heartbeats_and_scores(
    fuzz: Fuzzer, redis: Any, command: Command, format_for_people: Callable[[], None]
) -> None:
    for _ in range(10):
        redis.flushall()
        redis.hset(keys.workers(QUEUE), mapping={fuzz.job_id(): fuzz.heartbeat() for _ in range(50)})
        redis.zadd(QUEUE, {fuzz.job_id(): fuzz.score() for _ in range(20)})

        code, status, _ = command("status")

        assert code == 0
        assert parse_strictly(status)["jobs"]["due"] > 0
    format_for_people()
    assert_printable(command("status")[1])


@pytest.mark.parametrize("name", [QUEUE, keys.dead(QUEUE), keys.dead_letters(QUEUE), keys.workers(QUEUE)])
def test_keys_of_another_type_are_reported_in_one_line(name: str, fuzz: Fuzzer, redis: Any, command: Command) -> None:
    redis.zadd(keys.dead(QUEUE), {"a": 1})
    redis.delete(name)
    redis.set(name, MARKER)

    results = [command(*words) for words in (("status",), ("dead", "list"), ("dead", "show", "a"))]

    assert any(code == 1 for code, _, _ in results)
    for code, output, error in results:
        assert code in {0, 1}
        assert (code == 1) == error.startswith("Redis cannot be used: ")
        assert error.count("\n") == code or "no dead letter" in error
        assert_no_marker(output + error)

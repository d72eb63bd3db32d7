"""Does anything that can be written to Redis, to a file or on a command line do harm, or come out where it must not?

It is made up from a seed (`FAULTS_SEED` repeats one), and looks like what is expected in its place, but is not.
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
from tests.faults.fuzz import MARKER, MOST_BYTES, Fuzz, many
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
"""Records a number of a kind: the long form adds them up."""
QUEUE = keys.DEFAULT_QUEUE
SLOWEST_SECONDS = 1.0
NEVER_MS = 1e13
"""What is due later than this is never due (the year 2286)."""
FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}

pytestmark = pytest.mark.timeout(max(600, PAYLOADS / 50))


@pytest.fixture
def fuzz(seed: int) -> Fuzz:
    return Fuzz(seed)


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, str]]:
    """The variables that name a PostgreSQL and a Valkey."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-", dir="/tmp"))
    folder.chmod(0o711)  # PostgreSQL's user must be able to pass through
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


def strict(text: str | bytes) -> Any:
    """JSON as everybody reads it."""

    def refuse(constant: str) -> NoReturn:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


def without_marker(text: str | bytes, about: object = "") -> None:
    """The text holds nothing of the input."""
    checked = text if isinstance(text, str) else text.decode("utf-8", "backslashreplace")
    at = checked.find(MARKER)
    assert at < 0, f"{checked[max(0, at - 300) : at + 100]!r} of {about!r}"


# In one process: all that decodes, with a stand-in for the database only.


def refused(read_it: Callable[[], object], allowed: type[Exception], about: bytes) -> bool:
    """Whether it is refused; then by the one error that is documented, and without a value."""
    try:
        read_it()
    except allowed as error:
        without_marker("".join(traceback.format_exception(error)) if allowed is wire.WireError else str(error), about)
        return True
    return False


class Reading:
    """Does with a message what a transaction does before it begins."""

    async def run(self, job: ClaimedJob) -> Attempt:
        return Attempt(job, self._result(job))

    async def record(self, job: ClaimedJob, outcome: Rejected | Dead) -> Attempt:
        return Attempt(job, outcome)

    @staticmethod
    def _result(job: ClaimedJob) -> Outcome:
        if (job_type := REGISTRY.get(job.name)) is None:
            return Dead("unknown_job", "no job of this name is known here")
        try:
            message = job_type.message.model_validate(job.fields)
        except ValidationError as error:
            wire.digest(job.name, to_json(job.fields))
            return Rejected("invalid", "; ".join(problems(error)))
        without_marker(f"{message} {message!r}", job.fields)
        return Done(json.dumps(wire.digest(job.name, wire.fields_json(message)).hex()))


class RecordingSettler(Settler):
    """Keeps settlements instead of sending them."""

    def __init__(self) -> None:
        queue = Queue(cast("Any", None), QUEUE, lease_ms=1, result_ms=1, max_payload_bytes=1)
        super().__init__(queue, Leases(queue), Signals(), WorkerIdentity("w", QUEUE))
        self.settlements: list[Settlement] = []

    def _add(self, item: Settlement) -> None:
        self.settlements.append(item)


def executor_of(settler: Settler) -> Executor:
    """An executor without a database."""
    engine = create_engine("postgresql://localhost/none", pool_size=1)  # opens nothing
    sessions, runner = create_sessions(engine), Reading()
    batches = Batches(runner, sessions, REGISTRY, timeout_seconds=1)
    runtime = Runtime(engine, sessions, runner, batches, {}, JobLog(REGISTRY))
    return Executor(runtime, settler, Signals(), max_tries=5, batches=False)


def claimed(fuzz: Fuzz, payload: bytes) -> ClaimedJob:
    lease = Lease(fuzz.job_id(), b"token", repr(fuzz.score()).encode())
    attempt = fuzz.chance.choice([1, -7])
    return read_job(lease, payload, PayloadState.FETCHED, attempt, remembered_since_ms=0)


def assert_settled(job: ClaimedJob, item: Settlement) -> None:
    """What is sent to Redis holds no marker either, and can be read."""
    assert isinstance(item, settlement.Complete | settlement.Bury)
    result = wire.decode_result(item.result)
    if ids.is_job_id(job.job_id):
        without_marker(item.result, job.job_id)
    done = isinstance(item, settlement.Complete) and result.error is None
    assert (result.k, result.a, result.s) == ({}, [], done)
    if isinstance(item, settlement.Bury):
        without_marker(item.record)
        strict(item.record)


async def test_no_payload_breaks_its_reader_or_leaks_its_values(fuzz: Fuzz, record_property: Count) -> None:
    done, slowest = 0, 0.0
    settler = RecordingSettler()
    with structlog.testing.capture_logs() as lines:
        executor = executor_of(settler)
        for payload in many(fuzz.payload, PAYLOADS * 6 // 10):
            began = time.thread_time()
            refused(lambda payload=payload: wire.decode(payload), wire.WireError, payload)  # type: ignore[misc]
            refused(lambda payload=payload: arq_wire.loads(payload), wire.WireError, payload)  # type: ignore[misc]
            without_marker(json.dumps(summarize_payload(payload)), payload)
            job = claimed(fuzz, payload)
            assert safe_job_id(job.lease.job_id) is None or MARKER.encode() not in job.lease.job_id
            await executor.run([job])
            assert_settled(job, settler.settlements[-1])
            done += bool(lines and lines[-1]["event"] == "job_done")
            slowest = max(slowest, time.thread_time() - began)
    assert len(settler.settlements) == len(lines) > 0
    for line in lines:
        without_marker(to_json(line, inf_nan_mode="strings"))
    assert {line["event"] for line in lines} == {"job_done", "job_rejected", "job_dead"}
    assert done < len(lines) / 2, "too much of it was harmless"
    assert slowest < SLOWEST_SECONDS
    record_property("payloads", len(lines))


async def test_no_result_breaks_who_waits_for_it(
    fuzz: Fuzz, redis: Any, servers: dict[str, str], record_property: Count
) -> None:
    results = list(many(fuzz.result, max(200, PAYLOADS // 25)))
    record_property("results", len(results))
    client = connect(servers["REDIS_URL"], queue=QUEUE)
    waiting = ResultWaiter(client, QUEUE)
    with redis.pipeline(transaction=False) as pipeline:
        for number, result in enumerate(results):
            pipeline.set(keys.result(f"r{number}"), result)
        pipeline.execute()
    for number, result in enumerate(results):
        if refused(lambda result=result: wire.decode_result(result), wire.WireError, result):  # type: ignore[misc]
            refused(lambda result=result: arq_wire.loads(result), wire.WireError, result)  # type: ignore[misc]
        else:
            to_json(wire.decode_result(result).model_dump())
        job = JobHandle(f"r{number}", Deleted, accepted=True, redis=client, queue=QUEUE, results=waiting)
        with pytest.raises((JobError, JobNotFound)):  # there is no reply of this kind among them
            await job.result(PATIENCE_SECONDS)
        await job.status()
    await waiting.close()
    await client.aclose()
    await client.connection_pool.disconnect()


# Through a worker process.


class Bulk:
    """Good jobs and hostile ones, as they were written."""

    def __init__(self, fuzz: Fuzz, redis: Any) -> None:
        self.fuzz, self.redis = fuzz, redis
        self.good: list[bytes] = []
        self.hostile: dict[bytes, float] = {}

    def write(self, hostile: int, *, good_every: int) -> None:
        """Put them into the queue, raw."""
        with self.redis.pipeline(transaction=False) as pipeline:
            for number in range(hostile):
                self._hostile(pipeline)
                if number % good_every == 0:
                    self._good(pipeline)
                if number % 200 == 199:
                    self._spoil(pipeline)
                    pipeline.execute()
            pipeline.execute()

    def _spoil(self, pipeline: Any) -> None:
        """Write where all jobs have something; what is there already is not destroyed."""
        for key in ("arq:abort", keys.dead(QUEUE), keys.dead_letters(QUEUE), keys.parked(QUEUE, "k")):
            pipeline.set(key, MARKER, nx=True)
        noted = self.fuzz.chance.choices(["nan", "-nan", "inf", "-inf", "1e300", "1e17", "0x7f", "-1", MARKER, ""], k=2)
        pipeline.hset(keys.clock(QUEUE), mapping=dict(zip(("raw", "now"), noted, strict=True)))

    def _good(self, pipeline: Any) -> None:
        number = len(self.good)
        fields = {"email": f"u{number}@example.com", "username": f"u{number}", "hashed_password": GOOD_HASH}
        payload = wire.encode("create_user", json.dumps(fields).encode(), enqueue_time_ms=1)
        self.good.append(b"good%d%s" % (number, (b"", b"@k", b"@g")[number % 3]))
        pipeline.set(b"arq:job:" + self.good[-1], payload)
        pipeline.zadd(QUEUE, {self.good[-1]: 1.6e12 + number})

    def _hostile(self, pipeline: Any) -> None:
        chance = self.fuzz.chance
        job_id, score = self.fuzz.job_id(), self.fuzz.score()
        self.hostile[job_id] = score
        for prefix in ("arq:retry:", "arq:in-progress:", "arq:result:"):
            if chance.random() < 0.02:
                self._foreign(pipeline, prefix.encode() + job_id)
        if chance.random() < 0.02:
            number = chance.choice([b"x", b"-9223372036854775808", b"9223372036854775807", b"9" * 30, b"1.5"])
            pipeline.set(b"arq:retry:" + job_id, number)
        if (what := chance.random()) < 0.03:
            self._foreign(pipeline, b"arq:job:" + job_id)
        elif what < 0.95:
            pipeline.set(b"arq:job:" + job_id, self.fuzz.payload())
        pipeline.zadd(QUEUE, {job_id: score})

    def _foreign(self, pipeline: Any, key: bytes) -> None:
        command, *arguments = self.fuzz.wrong_type()
        pipeline.delete(key)
        pipeline.execute_command(command, key, *arguments)

    def left(self) -> int:
        """How many jobs are still to be claimed or settled."""
        # A claim's end is as near as a due job: none is as far as what is never due.
        return int(self.redis.zcount(QUEUE, "-inf", NEVER_MS))

    def results(self, job_ids: list[bytes]) -> dict[bytes, bytes | None]:
        """What each came to."""
        found: dict[bytes, bytes | None] = {}
        for start in range(0, len(job_ids), 500):
            some = job_ids[start : start + 500]
            found.update(zip(some, self.redis.mget([b"arq:result:" + one for one in some]), strict=True))
        return found


def test_no_job_harms_a_worker_or_others_jobs(
    fuzz: Fuzz, redis: Any, servers: dict[str, str], record_property: Count
) -> None:
    count = PAYLOADS * 3 // 10
    record_property("payloads", count)
    bulk = Bulk(fuzz, redis)
    redis.hset(keys.workers(QUEUE), mapping={fuzz.job_id(): fuzz.beat() for _ in range(50)})
    limits = {"WORKER_MAX_PAYLOAD_BYTES": str(MOST_BYTES // 2), "WORKER_LOG_LEVEL": "debug"}
    with Running((*WORKER, "run"), {**servers, **limits}) as worker:
        worker.wait_for("worker_started")
        bulk.write(count, good_every=10)

        eventually(
            lambda: bulk.left() == 0, seconds=PATIENCE_SECONDS + count / 50, hint=lambda: worker.output()[-2000:]
        )

        # The process is the one that was started, and ends well.
        assert worker.process.poll() is None
        assert worker.stop() == 0
        output = worker.output()
    # Every good job is done,
    good = bulk.results(bulk.good)
    assert [job_id for job_id, result in good.items() if result is None or not wire.decode_result(result).s] == []
    # every hostile one has come to its end, or is where no worker reads it,
    due = {job_id for job_id, score in bulk.hostile.items() if score < NEVER_MS}
    hostile = bulk.results(list(bulk.hostile))
    assert [job_id for job_id in due if hostile[job_id] is None] == []
    assert {one for one, _ in redis.zrange(QUEUE, 0, -1, withscores=True)} == set(bulk.hostile) - due
    ended = [wire.decode_result(hostile[job_id] or b"") for job_id in due]
    assert sum(result.s for result in ended) < len(ended) / 2, "too much of it was harmless"
    assert all(result.s or result.error is not None for result in ended)
    for prefix in (b"arq:in-progress:", b"arq:retry:", b"arq:job:"):
        left = {key.removeprefix(prefix) for key in redis.scan_iter(prefix + b"*", count=1000)}
        assert not left & due, f"{prefix!r} is left of {left & due}"
    # and no output holds anything of them.
    without_marker(output)
    assert "Traceback" not in output
    assert [
        line
        for line in output.splitlines()
        if strict(line)["event"] in {"batch_fault", "executor_fault", "task_fault", "unhandled_error"}
    ] == []


# On the command line.


def lines_of_csv(fuzz: Fuzz) -> bytes:
    header = fuzz.chance.choice([b"job,user_id,username", b"job,user_id", b"user_id,job,content", fuzz.row()])
    return b"\n".join([header, *many(fuzz.row, 100)])


@pytest.mark.usefixtures("redis")
@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_no_file_breaks_a_load(
    *,
    form: str,
    fuzz: Fuzz,
    servers: dict[str, str],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    record_property: Count,
) -> None:
    file = tmp_path / f"jobs.{form}"
    files = max(4, PAYLOADS // 2000)
    record_property("lines of files", 100 * files)
    for number in range(files):
        file.write_bytes(b"\n".join(many(fuzz.line, 100)) if form == "jsonl" else lines_of_csv(fuzz))
        options = ["--dry-run"] if number % 2 else ["--redis-url", servers["REDIS_URL"], "--queue", "fuzz"]

        code = producers_main(["load", str(file), *options])

        output = capfd.readouterr()
        assert code in {0, 1, 2}, output
        assert output.err
        for text in (output.out, output.err):
            without_marker(text)
            assert "Traceback" not in text
            assert text.replace("\n", "").isprintable()


class Command:
    """Runs `worker …` in this process."""

    def __init__(self) -> None:
        self._runner = CliRunner()

    def __call__(self, *words: str) -> tuple[int, str, str]:
        """Its exit code, what it printed and what it complained of."""
        done = self._runner.invoke(app, list(words))
        assert done.exception is None or isinstance(done.exception, SystemExit), (words, done.exc_info)
        assert "Traceback" not in done.output
        return done.exit_code, done.stdout, done.stderr


@pytest.fixture
def command(servers: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Command:
    for name, value in servers.items():
        monkeypatch.setenv(name, value)
    return Command()


@pytest.fixture
def for_people(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From when it is called, commands write for people."""

    def begin() -> None:
        for module in ("dead", "status"):
            monkeypatch.setattr(f"worker.commands.{module}.for_people", lambda **_: True)

    return begin


def shown(text: str) -> None:
    """It cannot steer a terminal."""
    assert text.strip()
    assert all(line.isprintable() for line in text.split("\n"))


def test_odd_letters_are_shown_and_odd_ids_are_answered(
    fuzz: Fuzz, redis: Any, command: Command, for_people: Callable[[], None], record_property: Count
) -> None:
    letters = {fuzz.job_id(): (fuzz.letter(), fuzz.score()) for _ in range(max(200, PAYLOADS // 25))}
    record_property("dead letters", len(letters))
    redis.zadd(keys.dead(QUEUE), {job_id: died_ms for job_id, (_, died_ms) in letters.items()})
    redis.hset(keys.dead_letters(QUEUE), mapping={job_id: letter for job_id, (letter, _) in letters.items()})
    for job_id in letters:
        redis.set(b"arq:dead:" + job_id, fuzz.payload())

    code, listed, _ = command("dead", "list", "--limit", "100000")

    listed_letters = [strict(line) for line in listed.splitlines()]
    now_ms = time.time() * 1000
    assert code == 0
    assert len(listed_letters) == sum(died_ms <= now_ms for _, died_ms in letters.values())
    for letter in listed_letters[:20]:
        code, output, _ = command("dead", "show", "--", letter["id"])
        assert (code, strict(output)["id"]) == (0, letter["id"])
        without_marker(json.dumps(strict(output)["payload"]))
    for job_id in [fuzz.job_id().replace(b"\0", b"") for _ in range(20)]:
        code, output, complaint = command("dead", "show", "--", os.fsdecode(job_id))
        assert code in {1, 2}
        assert output == ""
        assert complaint.isascii()
    for_people()
    shown(command("dead", "list", "--limit", "100000")[1])
    for letter in listed_letters[:20]:
        shown(command("dead", "show", "--payload", "--", letter["id"])[1])


def test_odd_signs_of_life_and_scores_do_not_break_the_status(
    fuzz: Fuzz, redis: Any, command: Command, for_people: Callable[[], None]
) -> None:
    for _ in range(10):
        redis.flushall()
        redis.hset(keys.workers(QUEUE), mapping={fuzz.job_id(): fuzz.beat() for _ in range(50)})
        redis.zadd(QUEUE, {fuzz.job_id(): fuzz.score() for _ in range(20)})

        code, status, _ = command("status")

        assert code == 0
        assert strict(status)["jobs"]["due"] > 0
    for_people()
    shown(command("status")[1])


@pytest.mark.parametrize("name", [QUEUE, keys.dead(QUEUE), keys.dead_letters(QUEUE), keys.workers(QUEUE)])
def test_keys_of_another_type_are_reported_in_one_line(name: str, fuzz: Fuzz, redis: Any, command: Command) -> None:
    redis.zadd(keys.dead(QUEUE), {"a": 1})
    redis.delete(name)
    redis.set(name, MARKER)

    answers = [command(*words) for words in (("status",), ("dead", "list"), ("dead", "show", "a"))]

    assert any(code == 1 for code, _, _ in answers)
    for code, output, complaint in answers:
        assert code in {0, 1}
        assert (code == 1) == complaint.startswith("Redis cannot be used: ")
        assert complaint.count("\n") == code or "no dead letter" in complaint
        without_marker(output + complaint)

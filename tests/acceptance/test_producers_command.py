"""`python -m producers` as a process: its output, its effects and its exit codes."""

import json
import os
import pty
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import redis
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from producers import JobRejected, arq_wire, keys, wire
from producers.contract import asyncapi_json
from worker.embedded import ValkeyServer

HASH = "$2b$12$EixZaYVK1fsbw1ZfbX3OXePaWxn96p36WQoeG6Lruj3vjPGga31lW"
SECRET = "s3cret-value"
QUEUE = keys.DEFAULT_QUEUE
USER = ["--email", "ada@example.com", "--username", "ada"]
COMMANDS = ["create-user", "update-user", "delete-user", "create-post", "update-post", "delete-post"]
REPLY = {
    "id": 1,
    "email": "ada@example.com",
    "username": "ada",
    "is_active": True,
    "created_at": "2025-01-01T00:00:00Z",
}
TIMEOUT_SECONDS = 60


@pytest.fixture(scope="module")
def server() -> Iterator[ValkeyServer]:
    folder = Path(tempfile.mkdtemp(prefix="test-producers-", dir="/tmp"))
    with ValkeyServer(folder / "valkey") as started:
        yield started
    shutil.rmtree(folder)


@pytest.fixture
def client(server: ValkeyServer) -> Iterator[redis.Redis]:
    """A client of an empty Redis."""
    with redis.Redis.from_url(server.url, socket_timeout=5) as made:
        made.flushall()
        made.config_resetstat()
        yield made


@pytest.fixture
def url(server: ValkeyServer, client: redis.Redis) -> str:
    return server.url


class Done:
    """An ended command."""

    def __init__(self, code: int, out: bytes, err: bytes) -> None:
        self.code = code
        self.out = out.decode()
        self.err = err.decode()
        assert "Traceback" not in self.out + self.err
        assert SECRET not in self.out + self.err

    @property
    def answer(self) -> dict[str, Any]:
        """The one JSON object on stdout."""
        (line,) = self.out.splitlines()
        answer: dict[str, Any] = json.loads(line)
        return answer

    @property
    def error(self) -> str:
        """The one line on stderr."""
        (line,) = self.err.splitlines()
        assert line.startswith("error: ")
        return line.removeprefix("error: ")


def environment(url: str | None, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in {"REDIS_URL", "WORKER_QUEUE"}}
    return kept | ({} if url is None else {"REDIS_URL": url}) | more


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-W", "error", "-m", "producers", *arguments]


def start(url: str, *arguments: str) -> subprocess.Popen[bytes]:
    """Start the command so that an interrupt reaches it, even if the tests run in the background."""
    source = (
        "import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "runpy.run_module('producers', run_name='__main__', alter_sys=True)"
    )
    arguments = (sys.executable, "-W", "error", "-c", source, *arguments)
    return subprocess.Popen(arguments, env=environment(url), stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def run(url: str | None, *arguments: str, stdin: bytes = b"", **more: str) -> Done:
    """Run the command in a pipe."""
    done = subprocess.run(
        command(*arguments),
        env=environment(url, **more),
        input=stdin,
        capture_output=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def run_on_terminal(url: str | None, *arguments: str) -> tuple[int, str]:
    """Run the command on its own terminal; returns its exit code and its output."""
    ours, its = pty.openpty()
    process = subprocess.Popen(
        command(*arguments),
        env=environment(url, TERM="xterm-256color", COLUMNS="120"),
        stdin=its,
        stdout=its,
        stderr=its,
        start_new_session=True,
    )
    os.close(its)
    seen = b""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        if not select.select([ours], [], [], 1)[0]:
            continue
        try:
            piece = os.read(ours, 65536)
        except OSError:
            break  # Linux raises when the other end is closed
        if not piece:
            break
        seen += piece
    os.close(ours)
    code = process.wait(timeout=10)
    text = seen.decode()
    assert "Traceback" not in text
    assert SECRET not in text
    return code, text


def envelope(client: redis.Redis, job_id: str) -> wire.Envelope:
    payload: Any = client.get(keys.job(job_id))
    return wire.decode(payload)


def queued(client: redis.Redis) -> list[str]:
    found: Any = client.zrange(QUEUE, 0, -1)
    return [job_id.decode() for job_id in found]


def looked_for_results(client: redis.Redis) -> bool:
    """Whether a result was polled since the statistics were reset."""
    statistics: Any = client.info("commandstats")
    return "cmdstat_mget" in statistics


def store_result(client: redis.Redis, job_id: str, reply: object, *, done: bool = True) -> None:
    """Store a result as a worker does."""
    result = {"f": "f", "k": {}, "a": [], "t": 1, "et": 1, "s": done, "r": reply, "st": 2, "ft": 3}
    client.set(keys.result(job_id), arq_wire.dumps(result), ex=600)


def closed_url() -> str:
    """The URL of a port without a listener."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"redis://127.0.0.1:{listener.getsockname()[1]}/0"


# One job


def test_jobs_are_enqueued_in_order(url: str, client: redis.Redis) -> None:
    done = [
        run(url, "create-user", *USER, "--hashed-password", HASH, "--no-is-active"),
        run(url, "update-user", "--user-id", "42", "--email", "b@example.com"),
        run(url, "delete-post", "--post-id", "7"),
    ]

    assert [(one.code, one.err, one.answer["accepted"]) for one in done] == [(0, "", True)] * 3
    ids = [one.answer["job_id"] for one in done]
    assert queued(client) == ids
    assert [(envelope(client, job_id).f, envelope(client, job_id).k) for job_id in ids] == [
        (
            "create_user",
            {"email": "ada@example.com", "username": "ada", "hashed_password": HASH, "is_active": False},
        ),
        ("update_user", {"user_id": 42, "changes": {"email": "b@example.com"}}),
        ("delete_post", {"post_id": 7}),
    ]


def test_a_hash_is_read_from_standard_input(url: str, client: redis.Redis) -> None:
    done = run(url, "create-user", *USER, "--hashed-password", "-", stdin=HASH.encode() + b"\n")

    assert done.code == 0
    assert envelope(client, done.answer["job_id"]).k["hashed_password"] == HASH


def test_options_set_the_redis_the_queue_the_id_and_the_delay(url: str, client: redis.Redis) -> None:
    options = ["--idempotency-key", "k", "--ordering-key", "tenant:7", "--defer-by", "60", "--redis-url", url]

    done = run(closed_url(), "delete-user", "--user-id", "1", *options, WORKER_QUEUE="other")

    assert done.answer == {"job_id": "k@tenant:7", "accepted": True}
    due: Any = client.zscore("other", "k@tenant:7")
    assert due > time.time() * 1000 + 30_000


def test_a_repeated_command_is_accepted_once_and_other_content_is_refused(url: str, client: redis.Redis) -> None:
    first, again, other = (
        run(url, "delete-user", "--user-id", user_id, "--idempotency-key", "k") for user_id in ("1", "1", "2")
    )

    assert (first.code, first.answer["accepted"]) == (0, True)
    assert (again.code, again.answer["accepted"]) == (0, False)
    assert (other.code, other.out) == (1, "")
    assert "use a new key for a new request" in other.error
    assert queued(client) == ["k@user:1"]


def test_wait_prints_the_reply(url: str, client: redis.Redis) -> None:
    store_result(client, "k", REPLY)

    done = run(url, "create-user", *USER, "--hashed-password", HASH, "--idempotency-key", "k", "--wait", "10")

    assert done.code == 0
    assert done.answer == {"job_id": "k", "accepted": False, "status": "done", "reply": REPLY}


def test_wait_prints_a_rejection(url: str, client: redis.Redis) -> None:
    store_result(client, "k@user:1", JobRejected("not_found", "no such user"), done=False)

    done = run(url, "update-user", "--user-id", "1", "--is-active", "--idempotency-key", "k", "--wait", "10")

    assert (done.code, done.err) == (1, "")
    assert done.answer == {
        "job_id": "k@user:1",
        "accepted": False,
        "status": "rejected",
        "code": "not_found",
        "detail": "no such user",
    }


def test_wait_prints_the_status_after_a_timeout(url: str) -> None:
    done = run(url, "delete-user", "--user-id", "1", "--wait", "0.05")

    assert done.code == 3
    assert (done.answer["accepted"], done.answer["status"]) == (True, "due")
    assert "the job continues: wait again" in done.error


def test_an_interrupt_during_wait_prints_the_id(url: str, client: redis.Redis) -> None:
    process = start(url, "delete-user", "--user-id", "1", "--idempotency-key", "k", "--wait", "60")
    while not looked_for_results(client):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=TIMEOUT_SECONDS)

    done = Done(process.returncode, out, err)
    assert done.code == 130
    assert done.answer["job_id"] == "k@user:1"
    assert "the job continues" in done.error


def test_an_invalid_message_is_one_error_line_and_sends_nothing(url: str, client: redis.Redis) -> None:
    done = run(url, "create-user", *USER, "--hashed-password", SECRET)

    assert (done.code, done.out) == (2, "")
    assert done.error.startswith("--hashed-password: must be an encoded argon2, bcrypt, scrypt or pbkdf2 hash")
    assert client.dbsize() == 0


@pytest.mark.parametrize("data", [b"\xff\xfe", SECRET.encode()])
def test_invalid_standard_input_is_one_error_line(url: str, client: redis.Redis, data: bytes) -> None:
    done = run(url, "create-user", *USER, "--hashed-password", "-", stdin=data)

    assert (done.code, done.out) == (2, "")
    assert done.error
    assert client.dbsize() == 0


@pytest.mark.parametrize(
    ("case", "code", "expected"),
    [
        (f"redis://:{SECRET}/@localhost:x", 2, "not the URL of a Redis: use redis://"),
        ("wrong password", 1, "check the password and database number in REDIS_URL"),
        ("no listener", 3, "start it, or set another one with REDIS_URL or --redis-url"),
    ],
)
def test_an_unusable_redis_is_one_error_line_with_advice(
    server: ValkeyServer, case: str, code: int, expected: str
) -> None:
    urls = {"wrong password": f"redis://:{SECRET}@127.0.0.1:{server.port}", "no listener": closed_url()}
    given = urls.get(case, case)

    done = run(given, "delete-user", "--user-id", "1", "--timeout", "0.2")

    assert (done.code, done.out) == (code, "")
    assert expected in done.error


def test_redis_without_memory_accepts_nothing(url: str, client: redis.Redis) -> None:
    client.config_set("maxmemory", "1")
    try:
        done = run(url, "delete-user", "--user-id", "1")
    finally:
        client.config_set("maxmemory", "0")

    assert (done.code, done.out) == (1, "")
    assert "nothing was accepted" in done.error or "refused" in done.error
    assert client.dbsize() == 0


def test_the_command_without_arguments_prints_the_help() -> None:
    done = run(None)

    assert (done.code, done.err) == (0, "")
    assert all(name in done.out for name in [*COMMANDS, "load", "export REDIS_URL=", "Exit codes"])


def test_the_outcome_is_formatted_on_a_terminal(url: str, client: redis.Redis) -> None:
    store_result(client, "k@post:7", {"id": 7, "title": "a\x1b[2Jb", "content": "line\nline", "author_id": 1})

    code, seen = run_on_terminal(
        url, "update-post", "--post-id", "7", "--title", "t", "--idempotency-key", "k", "--wait", "10"
    )

    assert code == 0
    assert "\x1b[" in seen  # colours
    assert "\x1b[2J" not in seen  # but none from the reply
    text = re.sub(r"\x1b\[[0-9;]*m", "", seen)
    assert "known already  k@post:7" in text
    assert "done" in text
    assert r"a\x1b[2Jb" in text
    assert r"line\nline" in text
    assert "{" not in text


def test_the_contract_is_printed_without_the_packages_of_the_extras() -> None:
    extras = {
        canonicalize_name(requirement.name)
        for requirement in map(Requirement, metadata.requires("userpost-worker") or ())
        if requirement.marker is not None and "extra" in str(requirement.marker)
    }
    blocked = {"worker"} | {
        module
        for module, owners in metadata.packages_distributions().items()
        if extras & set(map(canonicalize_name, owners))
    }
    assert {"sqlalchemy", "asyncpg", "structlog", "pydantic_settings"} <= blocked
    source = (
        f"import sys, runpy; sys.modules.update(dict.fromkeys({sorted(blocked)})); sys.argv[1:] = ['contract']; "
        "runpy.run_module('producers', run_name='__main__', alter_sys=True)"
    )

    printed = subprocess.run(
        [sys.executable, "-W", "error", "-c", source],
        env=environment(None),
        capture_output=True,
        timeout=TIMEOUT_SECONDS,
        check=True,
        encoding="utf-8",
    )

    assert printed.stderr == ""
    assert printed.stdout == asyncapi_json()


# A file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "jobs.jsonl").write_bytes(
        b'{"job":"delete_user","user_id":1}\n'
        b'{"job":"s3cret-value"}\n'
        b"\n"
        b'{"job":"update_user","user_id":2,"changes":{"email":"s3cret-value"}}\n'
        b"\xff s3cret-value\n"
        b'{"job":"create_user","email":"a@example.com","username":"a","hashed_password":"s3cret-value"}\n'
        b'{"job":"delete_post","post_id":3,"ordering_key":"tenant:7"}'
    )
    (tmp_path / "jobs.csv").write_text(
        "job,user_id,email,is_active,author_id,title,content\n"
        "delete_user,1,,,,,\n"
        "update_user,2,b@example.com,no,,,\n"
        'create_post,,,,42,On engines,"They ""weave"".\nAlgebra."\n'
        "update_user,s3cret-value,,,,,\n"
    )
    return tmp_path


def test_a_file_is_loaded_and_its_bad_lines_are_reported_by_number(url: str, client: redis.Redis, folder: Path) -> None:
    errors = folder / "errors.jsonl"

    done = run(url, "load", str(folder / "jobs.jsonl"), "--errors", str(errors), "--idempotency-prefix", "p")

    assert done.code == 1
    assert done.answer | {"seconds": 0, "jobs_per_second": 0} == {
        "accepted": 2,
        "already_known": 0,
        "lines": 6,
        "refused": 4,
        "seconds": 0,
        "jobs_per_second": 0,
        "idempotency_prefix": "p",
    }
    assert queued(client) == ["p-1@user:1", "p-7@tenant:7"]
    kept = [json.loads(line) for line in errors.read_text().splitlines()]
    assert [bad["line"] for bad in kept] == [2, 4, 5, 6]
    assert SECRET not in errors.read_text()
    assert done.err.splitlines() == [f"line {bad['line']}: {'; '.join(bad['problems'])}" for bad in kept]


def test_a_corrected_file_can_be_loaded_again(url: str, client: redis.Redis, folder: Path) -> None:
    file = folder / "jobs.jsonl"
    run(url, "load", str(file), "--idempotency-prefix", "p")
    file.write_bytes(file.read_bytes().replace(b'{"job":"s3cret-value"}', b'{"job":"delete_user","user_id":9}'))

    again = run(url, "load", str(file), "--idempotency-prefix", "p").answer

    assert (again["accepted"], again["already_known"], again["refused"]) == (1, 2, 3)
    assert sorted(queued(client)) == ["p-1@user:1", "p-2@user:9", "p-7@tenant:7"]


def test_csv_is_loaded(url: str, client: redis.Redis, folder: Path) -> None:
    done = run(url, "load", str(folder / "jobs.csv"), "--idempotency-prefix", "p")

    assert (done.code, done.answer["accepted"], done.answer["refused"]) == (1, 3, 1)
    assert done.err.startswith("line 6: user_id: input should be a valid integer")
    assert [envelope(client, job_id).k for job_id in queued(client)] == [
        {"user_id": 1},
        {"user_id": 2, "changes": {"email": "b@example.com", "is_active": False}},
        {"author_id": 42, "title": "On engines", "content": 'They "weave".\nAlgebra.'},
    ]


def test_standard_input_is_loaded(url: str, client: redis.Redis) -> None:
    done = run(url, "load", "-", "--format", "csv", stdin=b"job,user_id\ndelete_user,1\n")

    assert done.code == 0
    assert client.zcard(QUEUE) == 1


def test_a_dry_run_needs_no_redis_and_sends_nothing(client: redis.Redis, folder: Path) -> None:
    done = run(None, "load", str(folder / "jobs.jsonl"), "--dry-run")

    assert done.code == 1
    assert done.answer | {"seconds": 0} == {"dry_run": True, "valid": 2, "lines": 6, "refused": 4, "seconds": 0}
    assert client.dbsize() == 0


def test_from_line_skips_the_lines_before_it(url: str, client: redis.Redis, folder: Path) -> None:
    done = run(url, "load", str(folder / "jobs.csv"), "--from-line", "3", "--idempotency-prefix", "p")

    assert done.answer["accepted"] == 2
    assert queued(client)[0] == "p-3@user:2"


def test_a_load_without_redis_explains_how_to_continue(client: redis.Redis, tmp_path: Path) -> None:
    file = tmp_path / "jobs.jsonl"
    file.write_text('{"job":"delete_user","user_id":1}\n')

    done = run(closed_url(), "load", str(file), "--timeout", "0.2")

    assert done.code == 3
    assert (done.answer["accepted"], done.answer["next_line"]) == (0, 1)
    assert f"run the same load again with --idempotency-prefix {done.answer['idempotency_prefix']}" in done.error
    assert "lines from 1 on may be missing" in done.error


def test_an_interrupted_load_can_be_continued_and_accepts_each_line_once(
    url: str, client: redis.Redis, tmp_path: Path
) -> None:
    file = tmp_path / "jobs.jsonl"
    file.write_text("".join(f'{{"job":"delete_user","user_id":{number}}}\n' for number in range(1, 10_001)))
    process = start(url, "load", str(file))
    while not client.zcard(QUEUE):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=TIMEOUT_SECONDS)
    cut = Done(process.returncode, out, err)
    assert cut.code == 130
    assert 0 < cut.answer["next_line"] <= 10_000
    there: Any = client.zcard(QUEUE)

    rest = run(url, "load", str(file), "--idempotency-prefix", cut.answer["idempotency_prefix"])

    assert rest.code == 0
    assert (rest.answer["already_known"], rest.answer["accepted"]) == (there, 10_000 - there)
    assert [job_id.rpartition(":")[2] for job_id in queued(client)] == [str(number) for number in range(1, 10_001)]


def test_a_hundred_thousand_lines_take_little_memory(url: str, client: redis.Redis, tmp_path: Path) -> None:
    file = tmp_path / "jobs.jsonl"
    with file.open("w") as out:
        for number in range(1, 100_001):
            if number % 1000 == 7:
                out.write('{"job":"delete_post","post_id":"s3cret-value"}\n')
            elif number == 50_000:
                out.write("x" * 50_000_000 + "\n")
            else:
                out.write(f'{{"job":"delete_post","post_id":{number}}}\n')

    # A small process in between, because a child of this large one would be measured as large as it.
    source = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=False); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    between = subprocess.run(
        [sys.executable, "-c", source, *command("load", str(file))],
        env=environment(url),
        capture_output=True,
        timeout=TIMEOUT_SECONDS,
        check=True,
    )
    answer, largest_resident = between.stdout.splitlines()
    done = Done(1, answer, between.stderr)
    # In kilobytes on Linux, in bytes on macOS.
    largest = int(largest_resident) * (1 if sys.platform == "darwin" else 1024)
    assert (done.answer["lines"], done.answer["accepted"], done.answer["refused"]) == (100_000, 99_899, 101)
    assert client.zcard(QUEUE) == 99_899
    assert len(done.err.splitlines()) == 21
    assert done.err.splitlines()[-1] == "… and 81 more; --errors FILE keeps them all"
    assert largest < 150 * 1024 * 1024


def test_a_load_shows_its_progress_on_a_terminal(url: str, folder: Path) -> None:
    code, seen = run_on_terminal(url, "load", str(folder / "jobs.jsonl"))

    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", seen)
    assert code == 1
    assert "loading" in text
    assert "line 4: changes.email: must be a valid e-mail address" in text
    assert "2 accepted, 0 already known, 4 refused of 6 lines, in " in text


def test_a_closed_pipe_is_no_error(url: str) -> None:
    process = start(url, "delete-user", "--user-id", "1")
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    with process.stderr as stderr:
        assert stderr.read() == b""
    assert process.wait(timeout=TIMEOUT_SECONDS) == 0

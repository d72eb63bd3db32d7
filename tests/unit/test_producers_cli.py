"""A wrong command line is one line of error without a value, before anything is sent; and the help."""

import io
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from producers.cli.app import main
from producers.cli.output import printable
from producers.messages import MESSAGES

HASH = "$2b$12$EixZaYVK1fsbw1ZfbX3OXePaWxn96p36WQoeG6Lruj3vjPGga31lW"
SECRET = "s3cret-value"
USER = ["--email", "ada@example.com", "--username", "ada"]
COMMANDS = ["create-user", "update-user", "delete-user", "create-post", "update-post", "delete-post", "load"]
CLOSED_URL = "redis://127.0.0.1:1/0"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", CLOSED_URL)
    monkeypatch.setenv("COLUMNS", "120")
    for name in ("WORKER_QUEUE", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def stdin(monkeypatch: pytest.MonkeyPatch) -> io.BytesIO:
    """The standard input of the command."""
    data = io.BytesIO()
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=data))
    return data


def error_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The error line of a command that must be refused."""
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    (line,) = err.splitlines()
    assert line.startswith("error: ")
    assert SECRET not in out + err
    return line.removeprefix("error: ")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["create-user", *USER, "--hashed-password", SECRET], "--hashed-password: must be an encoded argon2, bcrypt"),
        (["create-user", "--email", SECRET, "--username", "a", "--hashed-password", HASH], "--email: must be a valid"),
        (["create-user", "--email", "a@example.com"], "Missing option '--username'"),
        (["create-post", "--author-id", SECRET, "--title", "t", "--content", "c"], "--author-id: input should be"),
        (["create-post", "--author-id", "1", "--title", "", "--content", "c"], "--title: string should have at least"),
        (["create-post", "--author-id", "1", "--title", "My", SECRET, "--content", "c"], "put quotes around a value"),
        (["create-post", "--author-id", "1", "--title", "-", "--content", "-"], "only one option can be read from"),
        (
            ["create-post", "--author-id", "1", "--title", "\udcff", "--content", "c"],
            "--title: input should be a valid",
        ),
        (["update-user", "--user-id", "1"], "at least one field to change: --email, --username, --hashed-password"),
        (["delete-user", "--user-id", "0"], "--user-id: input should be greater than or equal to 1"),
        (["delete-user", "--user-id", "1", f"--user-name={SECRET}"], "No such option: --user-name"),
        (["delete-user", "--user-id", "1", "--idempotency-key", "a b"], "idempotency key must match"),
        (["delete-user", "--user-id", "1", "--ordering-key", ""], "ordering key must match"),
        (["delete-user", "--user-id", "1", "--defer-by", "-1"], "defer_by must be from 0"),
        (["delete-user", "--user-id", "1", "--defer-by", "soon"], "Invalid value for '--defer-by'"),
        (["delete-user", "--user-id", "1", "--wait", "nan"], "--wait must be 0 seconds or more"),
        (["delete-user", "--user-id", "1", "--timeout", "0"], "--timeout must be more than 0"),
        (["frobnicate"], "No such command 'frobnicate'"),
        (["--frobnicate"], "No such option: --frobnicate"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_a_wrong_command_or_message_is_one_error_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], expected: str
) -> None:
    assert expected in error_of(capsys, *arguments)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("", "export REDIS_URL=redis://localhost:6379/0, or pass --redis-url"),
        ("localhost", "not the URL of a Redis: use redis://"),
        (f"http://:{SECRET}@localhost", "not the URL of a Redis"),
        (f"redis://:{SECRET}/@localhost:x", "percent-encode reserved characters"),
        (f"redis://localhost?password={SECRET}&surprise={SECRET}", "not the URL of a Redis"),
    ],
)
@pytest.mark.parametrize("command", [["delete-user", "--user-id", "1"], ["load", "{folder}/jobs.jsonl"]])
def test_an_invalid_url_is_one_error_line(
    capsys: pytest.CaptureFixture[str], folder: Path, url: str, expected: str, command: list[str]
) -> None:
    arguments = [argument.format(folder=folder) for argument in command]

    assert expected in error_of(capsys, *arguments, "--redis-url", url)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "jobs.jsonl").write_text('{"job":"delete_user","user_id":1}\n')
    (tmp_path / "jobs.csv").write_text("s3cret-value,1\n")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["load", "{folder}/nowhere.jsonl"], "nowhere.jsonl: No such file or directory"),
        (["load", "{folder}", "--format", "csv"], "Is a directory"),
        (["load", "{folder}/jobs.csv"], "column 1 is not one of job, email"),
        (["load", "{folder}/jobs.jsonl", "--format", "csv"], "the header is not CSV"),
        (["load", "{folder}/jobs.txt"], "pass --format jsonl or csv"),
        (["load", "{folder}/jobs.jsonl", "--format", "xml"], "Invalid value for '--format'"),
        (["load", "{folder}/jobs.jsonl", "--errors", "{folder}/jobs.jsonl"], "--errors must not be the input file"),
        (["load", "{folder}/jobs.jsonl", "--errors", "{folder}/no/errors"], "No such file or directory"),
        (["load", "{folder}/jobs.jsonl", "--idempotency-prefix", "a b"], "--idempotency-prefix: idempotency key must"),
        (["load", "{folder}/jobs.jsonl", "--timeout", "nan"], "--timeout must be more than 0"),
        (["load", "{folder}/jobs.jsonl", "--from-line", "0"], "Invalid value for '--from-line'"),
        (["load"], "Missing argument 'FILE'"),
    ],
)
def test_a_load_that_cannot_begin_is_one_error_line(
    capsys: pytest.CaptureFixture[str], folder: Path, arguments: list[str], expected: str
) -> None:
    assert expected in error_of(capsys, *(argument.format(folder=folder) for argument in arguments))
    assert (folder / "jobs.jsonl").read_text() == '{"job":"delete_user","user_id":1}\n'


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"\xff\xfe", "standard input is not UTF-8"),
        (b"x" * (1024 * 1024 + 1), "standard input holds more than 1048576 bytes"),
        (b"", "--hashed-password: must be an encoded"),
        (HASH.encode() + b"\n\n", "--hashed-password: must be an encoded"),
        (SECRET.encode(), "--hashed-password: must be an encoded"),
    ],
)
def test_invalid_standard_input_is_one_error_line(
    capsys: pytest.CaptureFixture[str], stdin: io.BytesIO, data: bytes, expected: str
) -> None:
    stdin.write(data)
    stdin.seek(0)

    assert expected in error_of(capsys, "create-user", *USER, "--hashed-password", "-")


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_a_hash_from_standard_input_may_end_in_a_line_break(
    capsys: pytest.CaptureFixture[str], stdin: io.BytesIO, end: bytes
) -> None:
    stdin.write(HASH.encode() + end)
    stdin.seek(0)

    # The hash is accepted, and only Redis is missing.
    assert main(["create-user", *USER, "--hashed-password", "-", "--timeout", "0.01"]) == 3
    assert "start it, or set another one with REDIS_URL or --redis-url" in capsys.readouterr().err


def test_the_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    for name in COMMANDS:
        assert main([name, "--help"]) == 0
        shown = capsys.readouterr().out
        assert f"python -m producers {name}" in shown
        assert "Examples:" in shown
    assert main(["update-user", "--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"--{option}" in shown for option in ("user-id", "email", "hashed-password", "no-is-active", "wait"))


def test_the_example_of_the_help_is_a_valid_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["update-user", "--help"]) == 0

    assert "python -m producers update-user --user-id 42 --email ada@example.com --wait 5" in capsys.readouterr().out
    assert main(["update-user", "--user-id", "42", "--email", "ada@example.com", "--timeout", "0.01"]) == 3


def test_every_message_has_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    ours = [job for job, message in MESSAGES.items() if message.__module__ == "producers.messages"]

    assert [job.replace("_", "-") for job in ours] + ["load"] == COMMANDS
    assert main([]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in [*COMMANDS, "contract", "export REDIS_URL=", "Exit codes"])


@pytest.mark.parametrize(
    "arguments",
    [
        ["create-user", *USER, "--hashed-password", HASH, "--is-active"],
        ["update-user", "--user-id", "42", "--username", "b", "--no-is-active"],
        ["delete-user", "--user-id", "42"],
        ["create-post", "--author-id", "42", "--title", "On engines", "--content", ""],
        ["update-post", "--post-id", "7", "--content", "They weave."],
        ["delete-post", "--post-id", "7", "--ordering-key", "tenant:7"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_valid_command_without_redis_is_one_error_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert main([*arguments, "--timeout", "0.01"]) == 3

    out, err = capsys.readouterr()
    assert (out, len(err.splitlines())) == ("", 1)
    assert "nothing was accepted" in err


@pytest.mark.parametrize("text", ["plain", "ä 🐍", "a b"])
def test_printable_text_is_unchanged(text: str) -> None:
    assert printable(text) == text


@pytest.mark.parametrize("text", ["\x1b[2J", "\r", "\n", "\x07", "\x9b31m", "\u202e", "\u2028", "\ud800"])
def test_control_characters_are_escaped(text: str) -> None:
    shown: Any = printable(text)

    assert shown.isprintable()
    assert shown.startswith("\\")

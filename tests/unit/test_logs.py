"""Does every line of the log have its form, and none of them a secret, whoever writes it?"""

import ast
import asyncio
import io
import logging
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import arq.worker
import pytest
import structlog

from tests.unit.written import Written, lines
from worker import app
from worker.observability import logs

HASH = "$2b$12$abcdefghijklmnopqrstuuKbQ8Y7rP5Zc0mD3vXw9sT1nL6eH2jGa"
EMAIL = "ada@example.com"
SECRETS = (HASH, EMAIL)


def fail() -> None:
    raise LookupError(f"no {EMAIL} with {HASH}")


# Form


def test_our_events_and_those_of_libraries_are_json_lines(written: Callable[..., Written]) -> None:
    read = written()
    structlog.get_logger("ours").info("job_done", job_id="1", run_ms=0.5, odd=object(), text="línea\n2 \x1b")
    logging.getLogger("theirs").warning("disk %d%% full", 90)

    ours, theirs = lines(read)
    assert {key: ours[key] for key in ("event", "level", "job_id", "run_ms", "odd", "text")} == {
        "event": "job_done", "level": "info", "job_id": "1", "run_ms": 0.5, "odd": "object", "text": "línea\n2 \x1b",
    }  # fmt: skip
    assert {key: theirs[key] for key in ("event", "level", "logger")} == {
        "event": "disk 90% full", "level": "warning", "logger": "theirs",
    }  # fmt: skip
    for line in (ours, theirs):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", line["timestamp"])


def test_the_console_form_is_for_people(written: Callable[..., Written]) -> None:
    read = written("console")
    structlog.get_logger("ours").info("job_done", job_id="1")
    logging.getLogger("theirs").warning("disk full")
    try:
        fail()
    except LookupError:
        logging.getLogger("theirs").exception("it failed")
        structlog.get_logger("ours").exception("it_failed")

    first, second, third, fourth = read().splitlines()
    assert re.fullmatch(r"\d\d:\d\d:\d\d\.\d{3}Z info    job_done             1", first)
    assert re.fullmatch(r"\S+Z warning disk full            logger=theirs", second)
    for line in (third, fourth):
        assert "error=LookupError at tests/unit/test_logs.py:" in line
        assert not any(secret in line for secret in SECRETS)
    assert "\x1b" not in read()  # no colours, for it is no terminal


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_the_level_holds_for_all(written: Callable[..., Written], level: str, expected: list[str]) -> None:
    read = written(level=level)
    for logger in (structlog.get_logger("ours"), logging.getLogger("theirs")):
        for name in ("debug", "info", "warning", "error"):
            getattr(logger, name)("said")
    assert [line["level"] for line in lines(read)] == expected * 2


def test_libraries_that_tell_values_are_held_back_at_any_level(written: Callable[..., Written]) -> None:
    read = written(level="debug")
    for name in ("sqlalchemy.engine.Engine", "sqlalchemy.pool", "asyncio", "redis.connection"):
        logging.getLogger(name).info("[generated] %s", HASH)
        logging.getLogger(name).debug("[generated] %s", HASH)
    assert read() == ""


def test_configuring_again_changes_all_and_doubles_nothing(written: Callable[..., Written]) -> None:
    ours = structlog.get_logger("ours")
    first = written("console")
    ours.info("one")
    second = written("json", "warning")
    ours.info("two")
    ours.warning("three")
    logging.getLogger("theirs").warning("four")

    assert len(first().splitlines()) == 1
    assert [line["event"] for line in lines(second)] == ["three", "four"]


def test_gathered_lines_are_written_at_once_in_their_order_whatever_is_raised(written: Callable[..., Written]) -> None:
    read = written()
    log = structlog.get_logger("ours")
    log.info("zero")

    with suppress(LookupError), logs.gathered():
        log.info("one")
        log.error("two")
        assert [line["event"] for line in lines(read)] == ["zero"]
        fail()

    log.info("three")
    assert [line["event"] for line in lines(read)] == ["zero", "one", "two", "three"]


# Exceptions


def test_an_exception_is_told_without_its_text_whoever_logs_it(written: Callable[..., Written]) -> None:
    read = written()
    theirs, ours = logging.getLogger("theirs"), structlog.get_logger("ours")
    try:
        fail()
    except LookupError as error:
        wrapper = RuntimeError(EMAIL)
        wrapper.__cause__ = error
        wrapper.add_note(HASH)
        theirs.exception("it failed")
        theirs.error("it failed", exc_info=error)
        theirs.error("it failed", exc_info=wrapper)
        theirs.warning("it failed", exc_info=True, stack_info=True)
        ours.exception("it_failed")
        ours.error("it_failed", exc_info=wrapper)
        ours.error("it_failed", exc_info=(type(error), error, error.__traceback__))
        ours.warning("it_failed", exc_info=True)

    assert len(lines(read)) == 8
    for line in lines(read):
        assert line["error"][-1]["type"] == "LookupError"
        assert line["error"][-1]["at"].startswith("tests/unit/test_logs.py:")
        assert not {"exc_info", "exception"} & line.keys()
    assert not any(secret in read() for secret in SECRETS)


def test_no_exception_is_no_error(written: Callable[..., Written]) -> None:
    read = written()
    structlog.get_logger("ours").info("fine", exc_info=True)
    logging.getLogger("theirs").info("fine", exc_info=(None, None, None))
    assert [line.keys() & {"error", "exc_info"} for line in lines(read)] == [set(), set()]


def test_what_asyncio_finds_unhandled_is_told_without_its_text(written: Callable[..., Written]) -> None:
    read = written()
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(app._log_unhandled)
    try:
        loop.call_soon(fail)
        task = loop.create_task(_fail_later())
        loop.run_until_complete(asyncio.sleep(0))
        loop.run_until_complete(asyncio.wait([task]))
        del task  # nobody asks for its exception
        loop.call_exception_handler({"message": f"something with {HASH}", "future": EMAIL})
    finally:
        loop.close()

    found = lines(read)
    assert [line["event"] for line in found] == ["unhandled_error"] * 3
    assert [line["error"] and line["error"][0]["type"] for line in found] == ["LookupError", "LookupError", None]
    assert not any(secret in read() for secret in SECRETS)


async def _fail_later() -> None:
    fail()


# arq


def arq_messages() -> list[tuple[str, str]]:
    """The level and the text of everything that arq's worker logs, read from its source."""
    tree = ast.parse(Path(str(arq.worker.__file__)).read_text())
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute))
    found = []
    for call in calls:
        said = call.args[0] if ast.unparse(call.func).startswith("logger.") else None
        if isinstance(said, ast.Constant):
            found.append((ast.unparse(call.func).removeprefix("logger."), str(said.value)))
    return found


ABOUT_ITSELF = {
    "Starting worker for %d functions: %s",
    "recording health: %s",
    "shutdown on %s, wait complete ◆ %d jobs complete ◆ %d failed ◆ %d retries ◆ %d ongoing to cancel",
    "shutdown on %s ◆ %d jobs complete ◆ %d failed ◆ %d retries ◆ %d to be completed",
    "shutdown on %s ◆ %d jobs complete ◆ %d failed ◆ %d retries ◆ %d ongoing to cancel",
}


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_no_message_of_arqs_worker_tells_what_a_job_holds(written: Callable[..., Written], log_format: str) -> None:
    # Given: all messages of arq that are about jobs, each argument of which is a secret.
    messages = [(level, text) for level, text in arq_messages() if text not in ABOUT_ITSELF]
    assert len(messages) >= 15
    assert any("→ %s(%s)%s" in text for _, text in messages)
    read = written(log_format, "debug")
    logger = logging.getLogger("arq.worker")

    # When: arq says them.
    for level, text in messages:
        conversions = re.findall(r"%[0-9.]*([sdrf])", text)
        arguments = [f"{EMAIL} {HASH}" if conversion in "sr" else 7 for conversion in conversions]
        try:
            fail()
        except LookupError:
            getattr(logger, level)(text, *arguments)

    # Then:
    assert not any(secret in read() for secret in SECRETS)
    # What is wrong is still said.
    for said in ("expired", "deserializing job (no job id) failed", "job of an unknown name", "max retries 7 exceeded"):
        assert said in read()


def test_arq_says_of_itself_what_it_has_to(written: Callable[..., Written]) -> None:
    read = written()
    logger = logging.getLogger("arq.worker")
    logger.info("Starting worker for %d functions: %s", 2, "create_user, delete_user")
    logger.info("redis_version=9.1 mem_usage=1M clients_connected=1 db_keys=0")
    logger.warning("job %s expired", "import-7@user:42")
    logger.warning("%6.2fs ! %s max retries %d exceeded", 1.5, "import-7@user:42:create_user", 5)
    logger.warning("job %s, function %r not found", "import-7", EMAIL)
    assert [line["event"] for line in lines(read)] == [
        "Starting worker for 2 functions: create_user, delete_user",
        "redis_version=9.1 mem_usage=1M clients_connected=1 db_keys=0",
        "job import-7@user:42 expired",
        "  1.50s ! import-7@user:42:create_user max retries 5 exceeded",
        "job of an unknown name",
    ]


def test_the_handlers_that_arqs_command_brings_are_taken_away(written: Callable[..., Written]) -> None:
    theirs = io.StringIO()
    logging.getLogger("arq").addHandler(logging.StreamHandler(theirs))
    logging.getLogger("arq").propagate = False
    read = written()
    logging.getLogger("arq.worker").info("Starting worker for %d functions: %s", 1, "create_user")
    logging.getLogger("arq.worker").info("%6.2fs → %s(%s)%s", 1.0, "job", EMAIL, "")
    assert theirs.getvalue() == ""
    assert len(lines(read)) == 1

"""Logs: the format of lines, and no secret in any of them, whether we, a library or arq writes it."""

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


# Format


def test_events_and_library_messages_are_json_lines(written: Callable[..., Written]) -> None:
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


def test_console_lines_hold_exceptions_without_their_texts(written: Callable[..., Written]) -> None:
    read = written("console")
    structlog.get_logger("ours").info("job_done", job_id="1")
    logging.getLogger("theirs").warning("disk full")
    try:
        fail()
    except LookupError:
        logging.getLogger("theirs").exception("it failed")
        structlog.get_logger("ours").exception("it_failed")

    first, second, third, fourth = read().splitlines()
    assert re.fullmatch(r"\d\d:\d\d:\d\d\.\d{3}Z \[info     \] job_done             job_id=1", first)
    assert re.fullmatch(r"\S+Z \[warning  \] disk full            logger=theirs", second)
    for line in (third, fourth):
        assert "error=LookupError at tests/unit/test_logs.py:" in line
        assert not any(secret in line for secret in SECRETS)
    assert "\x1b" not in read()  # no colors: it is not a terminal


LEVELS = ["debug", "info", "warning", "error"]


@pytest.mark.parametrize("level", LEVELS)
def test_the_level_applies_to_our_events_and_to_libraries(written: Callable[..., Written], level: str) -> None:
    read = written(level=level)
    for logger in (structlog.get_logger("ours"), logging.getLogger("theirs")):
        for name in LEVELS:
            getattr(logger, name)("logged")
    assert [line["level"] for line in lines(read)] == LEVELS[LEVELS.index(level) :] * 2


def test_libraries_that_log_values_are_silent_below_warning_at_any_level(written: Callable[..., Written]) -> None:
    read = written(level="debug")
    for name in ("sqlalchemy.engine.Engine", "sqlalchemy.pool", "asyncio", "redis.connection"):
        logging.getLogger(name).info("[generated] %s", HASH)
        logging.getLogger(name).debug("[generated] %s", HASH)
    assert read() == ""


def test_configuring_again_replaces_the_first_configuration(written: Callable[..., Written]) -> None:
    ours = structlog.get_logger("ours")
    first = written("console")
    ours.info("one")
    second = written("json", "warning")
    ours.info("two")
    ours.warning("three")
    logging.getLogger("theirs").warning("four")

    assert len(first().splitlines()) == 1
    assert [line["event"] for line in lines(second)] == ["three", "four"]


def test_buffered_lines_are_written_together_and_in_order_after_an_exception(written: Callable[..., Written]) -> None:
    read = written()
    log = structlog.get_logger("ours")
    log.info("zero")

    with suppress(LookupError), logs.buffered():
        log.info("one")
        log.error("two")
        assert [line["event"] for line in lines(read)] == ["zero"]
        fail()

    log.info("three")
    assert [line["event"] for line in lines(read)] == ["zero", "one", "two", "three"]


# Exceptions


def test_an_exception_is_logged_without_its_text_by_us_and_by_libraries(written: Callable[..., Written]) -> None:
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


def test_exc_info_without_an_exception_adds_no_error(written: Callable[..., Written]) -> None:
    read = written()
    structlog.get_logger("ours").info("fine", exc_info=True)
    logging.getLogger("theirs").info("fine", exc_info=(None, None, None))
    assert [line.keys() & {"error", "exc_info"} for line in lines(read)] == [set(), set()]


def test_an_unhandled_exception_in_asyncio_is_logged_without_its_text(written: Callable[..., Written]) -> None:
    read = written()
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(app._log_unhandled)
    try:
        loop.call_soon(fail)
        task = loop.create_task(_fail_later())
        loop.run_until_complete(asyncio.sleep(0))
        loop.run_until_complete(asyncio.wait([task]))
        del task  # without its exception having been retrieved
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
    """The level and the text of each message that arq's worker logs, read from its source."""
    tree = ast.parse(Path(str(arq.worker.__file__)).read_text())
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute))
    found = []
    for call in calls:
        text = call.args[0] if ast.unparse(call.func).startswith("logger.") else None
        if isinstance(text, ast.Constant):
            found.append((ast.unparse(call.func).removeprefix("logger."), str(text.value)))
    return found


LIFECYCLE = {
    "Starting worker for %d functions: %s",
    "recording health: %s",
    "shutdown on %s, wait complete ◆ %d jobs complete ◆ %d failed ◆ %d retries ◆ %d ongoing to cancel",
    "shutdown on %s ◆ %d jobs complete ◆ %d failed ◆ %d retries ◆ %d to be completed",
    "shutdown on %s ◆ %d jobs complete ◆ %d failed ◆ %d retries ◆ %d ongoing to cancel",
}


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_messages_of_arq_about_jobs_hold_no_arguments(written: Callable[..., Written], log_format: str) -> None:
    # Given all messages of arq about jobs, with secrets as their arguments
    messages = [(level, text) for level, text in arq_messages() if text not in LIFECYCLE]
    assert len(messages) >= 15
    assert any("→ %s(%s)%s" in text for _, text in messages)
    read = written(log_format, "debug")
    logger = logging.getLogger("arq.worker")

    # When arq logs them
    for level, text in messages:
        conversions = re.findall(r"%[0-9.]*([sdrf])", text)
        arguments = [f"{EMAIL} {HASH}" if conversion in "sr" else 7 for conversion in conversions]
        try:
            fail()
        except LookupError:
            getattr(logger, level)(text, *arguments)

    # Then the log holds no secret, but still reports each problem
    assert not any(secret in read() for secret in SECRETS)
    problems = ("expired", "deserializing job (invalid job id) failed", "job with an unknown name")
    for problem in (*problems, "max retries 7 exceeded"):
        assert problem in read()


def test_messages_of_arq_about_itself_are_logged(written: Callable[..., Written]) -> None:
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
        "job with an unknown name",
    ]


def test_log_handlers_of_the_arq_command_are_removed(written: Callable[..., Written]) -> None:
    theirs = io.StringIO()
    logging.getLogger("arq").addHandler(logging.StreamHandler(theirs))
    logging.getLogger("arq").propagate = False
    read = written()
    logging.getLogger("arq.worker").info("Starting worker for %d functions: %s", 1, "create_user")
    logging.getLogger("arq.worker").info("%6.2fs → %s(%s)%s", 1.0, "job", EMAIL, "")
    assert theirs.getvalue() == ""
    assert len(lines(read)) == 1

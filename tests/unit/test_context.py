"""Does what is logged during a try say whose try it is, and nothing else say so?"""

import asyncio
import gc
import logging
from collections.abc import Callable
from contextvars import Context

import structlog

from tests.unit.written import Written, lines
from worker import app
from worker.model.log_context import trying, trying_batch

ABOUT = ("job_id", "job", "try", "batch")


def about(written: Written) -> list[dict[str, object]]:
    return [{name: line[name] for name in ABOUT if name in line} for line in lines(written)]


def say() -> None:
    structlog.get_logger("ours").info("ours")
    logging.getLogger("theirs").warning("theirs")


async def test_each_task_says_its_own(written: Callable[..., Written]) -> None:
    read = written()

    async def one(number: int) -> None:
        trying(f"job-{number}", "create_user", number)
        await asyncio.sleep(0)
        say()
        await asyncio.create_task(child())

    async def child() -> None:
        say()

    await asyncio.gather(one(1), one(2))
    say()

    told: list[dict[str, object]] = [
        {"job_id": f"job-{number}", "job": "create_user", "try": number} for number in (1, 2)
    ]
    assert [told.index(line) if line else None for line in about(read)] == [0, 0, 1, 1, 0, 0, 1, 1, None, None]


def test_of_a_batch_it_is_told_how_many_they_are(written: Callable[..., Written]) -> None:
    read = written()

    def try_them() -> None:
        trying_batch("create_user", 64)
        say()
        trying("job-1", "create_user", 2)
        say()

    Context().run(try_them)
    batch, single = {"job": "create_user", "batch": 64}, {"job_id": "job-1", "job": "create_user", "try": 2}
    assert about(read) == [batch, batch, single, single]


def test_the_line_itself_comes_first(written: Callable[..., Written]) -> None:
    read = written()

    def try_it() -> None:
        trying("job-1", "create_user", 2)
        structlog.get_logger("ours").info("ours", job_id="job-2")
        structlog.get_logger("ours").info("ours", job="other")

    Context().run(try_it)
    assert about(read) == [{"job_id": "job-2"}, {"job_id": "job-1", "job": "other", "try": 2}]


def test_what_is_no_id_is_not_told(written: Callable[..., Written]) -> None:
    read = written()

    def try_it() -> None:
        trying("ada@example.com, hunter2", "unknown", 1)
        say()

    Context().run(try_it)
    assert about(read) == [{"job_id": None, "job": "unknown", "try": 1}] * 2


def test_what_was_bound_by_structlog_is_told_too(written: Callable[..., Written]) -> None:
    read = written()

    def bind() -> None:
        structlog.contextvars.bind_contextvars(page=3)
        say()

    Context().run(bind)
    assert [line["page"] for line in lines(read)] == [3, 3]


def test_an_error_that_nobody_asked_about_is_not_laid_on_the_job_that_runs_meanwhile(
    written: Callable[..., Written],
) -> None:
    read = written()
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(app._log_unhandled)

    async def fail() -> None:
        raise LookupError

    failed: list[asyncio.Task[None]] = []

    async def another_try() -> None:
        trying("job-2", "create_user", 1)
        failed.clear()  # it is thrown away here
        gc.collect()

    async def main() -> None:
        trying("job-1", "create_user", 1)
        failed.append(asyncio.create_task(fail()))
        await asyncio.wait(failed)
        await asyncio.create_task(another_try())

    loop.run_until_complete(loop.create_task(main(), context=Context()))
    loop.close()
    (line,) = lines(read)
    assert line["event"] == "unhandled_error"
    assert line.get("job_id") != "job-2"

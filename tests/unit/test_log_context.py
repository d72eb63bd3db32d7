"""The job context of log lines: each task's lines name its own job, and no other line names one."""

import asyncio
import gc
import logging
from collections.abc import Callable
from contextvars import Context

import structlog

from tests.unit.written import Written, lines
from worker import app
from worker.model.log_context import set_current_batch, set_current_job

CONTEXT_FIELDS = ("job_id", "job", "attempt", "batch")


def contexts(written: Written) -> list[dict[str, object]]:
    """The context fields of each line."""
    return [{name: line[name] for name in CONTEXT_FIELDS if name in line} for line in lines(written)]


def log_both() -> None:
    """Log one line of our own and one as a library does."""
    structlog.get_logger("ours").info("ours")
    logging.getLogger("theirs").warning("theirs")


async def test_lines_of_each_task_name_its_own_job(written: Callable[..., Written]) -> None:
    read = written()

    async def attempt(number: int) -> None:
        set_current_job(f"job-{number}", "create_user", number)
        await asyncio.sleep(0)
        log_both()
        await asyncio.create_task(child())

    async def child() -> None:
        log_both()

    await asyncio.gather(attempt(1), attempt(2))
    log_both()

    first, second = ({"job_id": f"job-{number}", "job": "create_user", "attempt": number} for number in (1, 2))
    assert contexts(read) == [first, first, second, second, first, first, second, second, {}, {}]


def test_lines_of_a_batch_have_its_size_until_a_job_runs_alone(written: Callable[..., Written]) -> None:
    read = written()

    def run_batch() -> None:
        set_current_batch("create_user", 64)
        log_both()
        set_current_job("job-1", "create_user", 2)
        log_both()

    Context().run(run_batch)
    batch, single = {"job": "create_user", "batch": 64}, {"job_id": "job-1", "job": "create_user", "attempt": 2}
    assert contexts(read) == [batch, batch, single, single]


def test_fields_of_the_line_override_the_context(written: Callable[..., Written]) -> None:
    read = written()

    def run_job() -> None:
        set_current_job("job-1", "create_user", 2)
        structlog.get_logger("ours").info("ours", job_id="job-2")
        structlog.get_logger("ours").info("ours", job="other")

    Context().run(run_job)
    assert contexts(read) == [{"job_id": "job-2"}, {"job_id": "job-1", "job": "other", "attempt": 2}]


def test_an_invalid_job_id_is_not_logged(written: Callable[..., Written]) -> None:
    read = written()

    def run_job() -> None:
        set_current_job("ada@example.com, hunter2", "unknown", 1)
        log_both()

    Context().run(run_job)
    assert contexts(read) == [{"job_id": None, "job": "unknown", "attempt": 1}] * 2


def test_fields_bound_with_structlog_are_logged(written: Callable[..., Written]) -> None:
    read = written()

    def bind() -> None:
        structlog.contextvars.bind_contextvars(page=3)
        log_both()

    Context().run(bind)
    assert [line["page"] for line in lines(read)] == [3, 3]


def test_an_unretrieved_error_is_not_attributed_to_the_job_that_runs_when_it_is_found(
    written: Callable[..., Written],
) -> None:
    read = written()
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(app._log_unhandled)

    async def fail() -> None:
        raise LookupError

    failed: list[asyncio.Task[None]] = []

    async def run_second_job() -> None:
        set_current_job("job-2", "create_user", 1)
        failed.clear()  # drops the last reference to the failed task
        gc.collect()

    async def main() -> None:
        set_current_job("job-1", "create_user", 1)
        failed.append(asyncio.create_task(fail()))
        await asyncio.wait(failed)
        await asyncio.create_task(run_second_job())

    loop.run_until_complete(loop.create_task(main(), context=Context()))
    loop.close()
    (line,) = lines(read)
    assert line["event"] == "unhandled_error"
    assert line.get("job_id") != "job-2"

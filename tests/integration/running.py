"""A real worker in the test's own process, and the jobs that the tests give it."""

import asyncio
import os
import pty
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from arq.worker import Worker

from producers import CreateUser
from tests.jobs import HASH
from tests.waiting import PATIENCE_SECONDS
from worker.app import engine_worker, stock_arguments
from worker.engine.worker import EngineWorker
from worker.settings import Settings

# Every creation of a user fails, for no reason of the job's, until it is mended.
BREAK = """
CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'broken'; END $$;
CREATE TRIGGER fail BEFORE INSERT ON users FOR EACH ROW EXECUTE FUNCTION fail()
"""
MEND = "DROP FUNCTION fail CASCADE"


async def run_all(sql: Any, statements: str) -> None:
    """Run statements, one after the other."""
    for statement in statements.split(";\n"):
        await sql(statement)


def settings_of(redis_url: str, database_url: str, **values: Any) -> Settings:
    """Settings for a worker that has nothing to do with this process's environment."""
    return Settings.load(REDIS_URL=redis_url, DATABASE_URL=database_url, **{"concurrency": 4, **values})


def user(name: str) -> CreateUser:
    """A job that creates a user of this name."""
    return CreateUser(email=f"{name}@example.com", username=name, hashed_password=HASH)


async def burst(settings: Settings) -> None:
    """Run a worker until the queue is empty."""
    worker = engine_worker(settings, burst=True)
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await worker.async_run()
    finally:
        await worker.close()


async def stock_burst(settings: Settings) -> None:
    """Run the stock arq worker until the queue is empty."""
    worker = Worker(**stock_arguments(settings) | {"burst": True, "poll_delay": 0.005}, handle_signals=False)
    try:
        await worker.async_run()
    finally:
        await worker.close()


@asynccontextmanager
async def working(settings: Settings) -> AsyncIterator[EngineWorker]:
    """A worker that runs for as long as the block does."""
    worker = engine_worker(settings)
    running = asyncio.create_task(worker.async_run())
    try:
        yield worker
    finally:
        worker.handle_sig(signal.SIGTERM)
        worker.handle_sig(signal.SIGTERM)
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await running
        finally:
            await worker.close()


async def on_a_terminal(settings: Settings, *words: str, typed: str = "") -> tuple[int, str]:
    """Run the real command on a terminal, with something typed ahead: its exit code and all that the terminal got."""
    return await asyncio.to_thread(_on_a_terminal, environment(settings), words, typed)


def environment(settings: Settings) -> dict[str, str]:
    """The settings as environment variables of a command."""
    return {
        "DATABASE_URL": settings.database_url.get_secret_value(),
        "REDIS_URL": settings.redis_url.get_secret_value(),
        "WORKER_MAX_PAYLOAD_BYTES": str(settings.max_payload_bytes),
    }


def _on_a_terminal(variables: dict[str, str], words: tuple[str, ...], typed: str) -> tuple[int, str]:
    ours, theirs = pty.openpty()
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "worker", *words],
            env=os.environ | variables | {"COLUMNS": "160", "TERM": "xterm"},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )
    finally:
        os.close(theirs)
    os.write(ours, typed.encode())
    printed = b""
    try:
        while data := os.read(ours, 65536):
            printed += data
    except OSError:  # Linux reports so that the other end is closed
        pass
    finally:
        os.close(ours)
    return process.wait(PATIENCE_SECONDS), printed.decode()

"""What this project uses of arq, SQLAlchemy and redis-py beyond what they document: an upgrade may change it.

Without it a worker would silently claim in arq's way, ping every connection, or fail at its first command.
"""

import inspect
from collections.abc import Callable
from typing import Any

import pytest
from arq.worker import Worker
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection, ConnectionPool
from sqlalchemy.dialects.postgresql import asyncpg

from worker import app
from worker.engine.worker import EngineWorker
from worker.settings import Settings

SETTINGS = Settings.load(DATABASE_URL="postgresql://localhost/none", REDIS_URL="redis://localhost")
Dialect = asyncpg.PGDialect_asyncpg
OVERRIDDEN = {name for name in vars(EngineWorker) if name in vars(Worker) and not name.startswith("__")}
ATTRIBUTES = "_pool burst cron_jobs ctx health_check_key on_shutdown on_startup queue_name timezone"
USES: list[tuple[Callable[..., Any], str]] = [
    (Worker.__init__, "_add_signal_handler handle_sig handle_sig_wait_for_completion"),
    (Worker.run, "main close"), (Worker.async_run, "main"), (Worker.run_cron, "cron_jobs pool enqueue_job"),
    (Dialect._do_ping_w_event, "do_ping"), (asyncpg.AsyncAdapt_asyncpg_dbapi.connect, "async_creator_fn"),
    (asyncpg.AsyncAdapt_asyncpg_cursor.__init__, "_adapt_connection"), (AbstractConnection.__init__, "_reader _writer"),
]  # fmt: skip
TAKES: list[tuple[Callable[..., Any], str]] = [
    (Worker.run_cron, "n delay"), (Dialect.do_ping, "dbapi_connection"),
    (Dialect.do_execute, "cursor statement parameters context"),
    (Dialect.do_executemany, "cursor statement parameters context"),
    (AbstractConnection.check_health, ""), (AbstractConnection._socket_is_empty, ""),
    (AbstractConnection.read_response, ""), (AbstractConnection.send_packed_command, "command"),
    (ConnectionPool.get_available_connection, ""), (ConnectionPool.ensure_connection, "connection"),
    (ConnectionPool.release, "connection"),
]  # fmt: skip


@pytest.mark.parametrize("name", sorted(OVERRIDDEN | {"main", "close", "handle_sig", "handle_sig_wait_for_completion"}))
def test_an_overridden_method_of_arqs_worker_has_the_same_parameters(name: str) -> None:
    theirs, ours = (inspect.signature(getattr(worker, name)).parameters for worker in (Worker, EngineWorker))
    assert [*theirs] == [*ours]


@pytest.mark.parametrize(("function", "names"), [*USES, *TAKES])
def test_a_library_function_is_as_it_is_used(function: Callable[..., Any], names: str) -> None:
    if (function, names) in USES:
        assert {*names.split()} <= {*function.__code__.co_names, *function.__code__.co_consts}
    else:
        assert [*inspect.signature(function).bind(None, *names.split()).arguments][1:] == names.split()


async def test_arqs_worker_takes_our_arguments_and_sets_the_attributes_we_use() -> None:
    assert {*app.stock_arguments(SETTINGS), "redis_pool", "handle_signals"} <= {*inspect.signature(Worker).parameters}
    worker = Worker(**app.arq_arguments(SETTINGS), redis_pool=Redis(), handle_signals=False)  # type: ignore[arg-type]
    assert {*ATTRIBUTES.split()} <= {*vars(worker)}
    assert worker.pool is worker._pool

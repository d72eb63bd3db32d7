"""Whether arq, SQLAlchemy and redis-py are still as this worker relies on them beyond what they document.

`EngineWorker` overrides methods of arq's `Worker` that arq's own `run` and `__init__` call, `worker/database` replaces
a method of SQLAlchemy's dialect and gives it its own way to connect, and `producers` looks into redis-py's connections.
A version that has them no more must be told at the start, by name: without this the worker would silently fall back on
arq's own claiming, ping every connection, or fail at its first command.
"""

import inspect
from collections.abc import Callable, Iterable
from importlib.metadata import version

from arq.worker import Worker
from redis.asyncio.connection import AbstractConnection, ConnectionPool
from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_dbapi, PGDialect_asyncpg

ARQ_SERIES = "0.28."
"""The only series of arq that is known to fit."""
# As pyproject.toml has them.
ARQ_PIN = "arq>=0.28,<0.29"
SQLALCHEMY_PIN = "sqlalchemy[asyncio]>=2.1,<2.2"
REDIS_PIN = "redis[hiredis]>=5.3,<6"

# What is called or overridden, with the arguments that are given by position.
METHODS: dict[str, tuple[str, ...]] = {
    "main": (),
    "close": (),
    "run": (),
    "run_cron": ("n", "delay"),
    "handle_sig": ("signum",),
    "handle_sig_wait_for_completion": ("signum",),
    "_add_signal_handler": ("signum", "handler"),
}
# What calls what: an override that nobody calls any more would be no use.
CALLS: dict[str, tuple[str, ...]] = {
    "run": ("main", "close"),
    "run_cron": ("cron_jobs", "pool", "enqueue_job"),
    "__init__": ("_add_signal_handler", "handle_sig", "handle_sig_wait_for_completion"),
}
# What `__init__` sets and `EngineWorker` uses.
ATTRIBUTES = (
    "_pool", "burst", "cron_jobs", "ctx", "health_check_key", "on_shutdown", "on_startup", "queue_name", "timezone",
)  # fmt: skip


class Incompatible(Exception):
    """An installed library is not as this worker needs it. The text is one line with the way out."""


def check(
    arguments: Iterable[str],
    *,
    worker: type = Worker,
    arq_version: str | None = None,
    dialect: type = PGDialect_asyncpg,
    driver: type = AsyncAdapt_asyncpg_dbapi,
    connection: type = AbstractConnection,
    pool: type = ConnectionPool,
) -> None:
    """Raise unless the libraries are as they must be.

    Args:
        arguments: the arguments that arq's `Worker` is to be given.
        worker: arq's class.
        arq_version: arq's version; default: the one that is installed.
        dialect: SQLAlchemy's class.
        driver: SQLAlchemy's, that of the dialect.
        connection: redis-py's class.
        pool: redis-py's class.

    Raises:
        Incompatible: naming all that is missing.
    """
    arq_version = arq_version or version("arq")
    missing = [*_of_worker(worker, arguments)]
    if not arq_version.startswith(ARQ_SERIES):
        missing.insert(0, f"it is not of the series {ARQ_SERIES}x")
    if missing:
        raise Incompatible(f"arq {arq_version} does not fit this worker: {'; '.join(missing)}: pip install '{ARQ_PIN}'")
    if missing := [*_of_redis(connection, pool)]:
        raise Incompatible(
            f"redis {version('redis')} does not fit this worker: {'; '.join(missing)}: pip install '{REDIS_PIN}'"
        )
    if missing := [*_of_dialect(dialect), *_of_driver(driver)]:
        raise Incompatible(
            f"SQLAlchemy {version('sqlalchemy')} does not fit this worker: {'; '.join(missing)}: "
            f"pip install '{SQLALCHEMY_PIN}'"
        )


def _of_worker(worker: type, arguments: Iterable[str]) -> Iterable[str]:
    for name, needed in METHODS.items():
        method = getattr(worker, name, None)
        if not inspect.isfunction(method):
            yield f"Worker.{name} is missing"
        elif not _takes(method, needed):
            yield f"Worker.{name} does not take ({', '.join(needed)})"
    for name, called in CALLS.items():
        if (method := getattr(worker, name, None)) is not None:
            yield from (f"Worker.{name} does not use {other}" for other in called if other not in _names(method))
    set_names = _names(worker.__init__)  # type: ignore[misc]  # looked at, not called
    yield from (f"Worker.{name} is missing" for name in ATTRIBUTES if name not in set_names)
    if not isinstance(inspect.getattr_static(worker, "pool", None), property):
        yield "Worker.pool is missing"
    parameters = inspect.signature(worker).parameters
    yield from (f"Worker takes no {name}" for name in arguments if name not in parameters)


def _of_dialect(dialect: type) -> Iterable[str]:
    ping = getattr(dialect, "do_ping", None)
    if not inspect.isfunction(ping) or not _takes(ping, ("dbapi_connection",)):
        yield "Dialect.do_ping(dbapi_connection) is missing"
    for name in ("do_execute", "do_executemany"):
        execute = getattr(dialect, name, None)
        if not inspect.isfunction(execute) or not _takes(execute, ("cursor", "statement", "parameters", "context")):
            yield f"Dialect.{name}(cursor, statement, parameters, context) is missing"
    if "do_ping" not in _names(getattr(dialect, "_do_ping_w_event", None)):
        yield "the pool does not ping by Dialect.do_ping"


def _of_driver(driver: type) -> Iterable[str]:
    code = getattr(getattr(driver, "connect", None), "__code__", None)
    if code is None or "async_creator_fn" not in code.co_consts:
        yield "connect_args takes no async_creator_fn"


def _of_redis(connection: type, pool: type) -> Iterable[str]:
    set_names = _names(connection.__init__)  # type: ignore[misc]  # looked at, not called
    yield from (f"Connection.{name} is missing" for name in ("_reader", "_writer") if name not in set_names)
    for owner, kind, names in (
        (connection, "Connection", ("_socket_is_empty", "check_health", "read_response", "send_packed_command")),
        (pool, "ConnectionPool", ("get_available_connection", "ensure_connection", "release")),
    ):
        yield from (f"{kind}.{name} is missing" for name in names if not inspect.isfunction(getattr(owner, name, None)))


def _takes(method: Callable[..., object], names: tuple[str, ...]) -> bool:
    """Whether a method can be called with self and these arguments, by position and under these names."""
    signature = inspect.signature(method)
    try:
        bound = signature.bind(None, *names)
    except TypeError:
        return False
    return tuple(bound.arguments)[1:] == names


def _names(function: object) -> tuple[str, ...]:
    """The names of attributes that a function uses or sets."""
    code = getattr(function, "__code__", None)
    return () if code is None else tuple(code.co_names)

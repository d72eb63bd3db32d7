"""Connections to PostgreSQL: how one is opened, when one is pinged, and what it means when one breaks.

asyncpg reports a broken connection in many ways. Here each becomes one exception with an SQLSTATE, so that the rest of
the worker classifies it as it classifies an answer of the server.
"""

import time
from typing import Any

import asyncpg  # type: ignore[import-untyped]
from sqlalchemy import Engine, event, text
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import ResourceClosedError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from worker.model.failures import classify, describe, is_lock_timeout, lacks_privilege
from worker.model.outcome import Release

RECENT_SECONDS = 0.5
"""A connection used within this time is not pinged before it is used again."""

_MARGIN = 0.9  # The server's idle clock starts one network delay before ours.


class ConnectionLost(Exception):
    """The connection failed, or the server did not answer in time. Whether the last statement ran is unknown."""

    sqlstate = "08006"


class Unreachable(Exception):
    """No connection could be made; see the cause."""

    sqlstate = "08001"


class LeftIdle(Exception):
    """The server ended a transaction that was idle for longer than allowed. The server is not at fault."""

    sqlstate = "25P03"


DATABASE_ERRORS = (SQLAlchemyError, asyncpg.PostgresError, ConnectionLost, Unreachable, LeftIdle, OSError)
"""What a call to PostgreSQL raises when it fails."""


async def ping(engine: AsyncEngine) -> str:
    """Return the version of the server, over a connection of the pool. Raises one of `DATABASE_ERRORS`."""
    async with engine.connect() as connection:
        return str(await connection.scalar(text("SHOW server_version")))


def describe_error(error: Exception) -> str:
    """Describe why the database cannot be used, without any value of a message.

    >>> describe_error(ConnectionRefusedError("10.0.0.7"))
    'the database cannot be reached (ConnectionRefusedError)'
    """
    cause = error.__cause__ if isinstance(error, Unreachable) else error
    if isinstance(cause, OSError):
        return f"the database cannot be reached ({type(cause).__name__})"
    if isinstance(error, ResourceClosedError):
        return "the connection to the database was lost"  # SQLAlchemy raises this if the connection drops during setup
    if lacks_privilege(error):
        return "the role lacks a privilege on the tables or the schema (SQLSTATE 42501): see docs/operations.md"
    if is_lock_timeout(error):
        return "another transaction holds a lock that is needed"
    attempt = classify(error)
    return attempt.detail if isinstance(attempt, Release) else describe(error)


async def connect(*args: Any, **options: Any) -> Any:
    """Open a connection with asyncpg, whose socket errors do not name the server.

    Raises:
        Unreachable: the server cannot be reached.
    """
    try:
        return await asyncpg.connect(*args, **options)
    except OSError as error:  # includes TimeoutError
        raise Unreachable from error


class ConnectionActivity:
    """When each connection of an engine was last used.

    The pool pings a connection after some idle time, and a long idle time explains why the server has closed one. This
    wraps the dialect's methods: SQLAlchemy's event listeners would add a tenth to a job's function calls.
    """

    def __init__(self, engine: Engine) -> None:
        self._used: dict[int, float] = {}
        self._idle: dict[int, float] = {}
        """Idle seconds before the connection's most recent statement."""
        dialect = engine.dialect
        for name in ("do_execute", "do_executemany"):
            setattr(dialect, name, self._timed(getattr(dialect, name)))
        for ended in ("close", "close_detached"):
            event.listen(engine, ended, self._forget)

    def note(self, connection: Any) -> None:
        """Record that the connection is used now."""
        self._used[id(connection)] = time.monotonic()

    def unused_seconds(self, connection: Any) -> float | None:
        """Seconds since its last use; None when it was never used."""
        used = self._used.get(id(connection))
        return None if used is None else time.monotonic() - used

    def idle_seconds(self, connection: Any) -> float:
        """Idle seconds before its most recent statement."""
        return self._idle.get(id(connection), 0.0)

    def _timed(self, execute: Any) -> Any:
        def timed(cursor: Any, statement: Any, parameters: Any, context: Any = None) -> None:
            key = id(cursor._adapt_connection)  # noqa: SLF001  # see tests/unit/test_library_contract.py
            now = time.monotonic()
            self._idle[key] = now - self._used.get(key, now)
            execute(cursor, statement, parameters, context)
            self._used[key] = time.monotonic()

        return timed

    def _forget(self, connection: Any, _record: Any = None) -> None:
        # A later connection may get the same id.
        self._used.pop(id(connection), None)
        self._idle.pop(id(connection), None)


def classify_disconnects(engine: Engine, activity: ConnectionActivity, idle_seconds: float) -> None:
    """Make the engine raise `ConnectionLost` or `LeftIdle` where asyncpg reports only a closed connection.

    asyncpg drops the server's message when the server ends an idle transaction. SQLAlchemy passes asyncpg's timeouts
    and socket errors through, and keeps the connection in the pool.
    """

    def replace(context: ExceptionContext) -> BaseException | None:
        failed = isinstance(context.original_exception, OSError)  # includes TimeoutError
        if context.connection is None or not (failed or context.is_disconnect):
            return None
        if not isinstance(context.original_exception, Exception):
            return None  # cancelled: SQLAlchemy discards the connection for that alone
        context.is_disconnect = True
        if failed:
            return ConnectionLost()
        if not context.connection.invalidated:
            connection = context.connection.connection.dbapi_connection
            # The time that a statement takes is not idle time. BEGIN and COMMIT take next to none.
            idle = (
                activity.unused_seconds(connection) if context.statement is None else activity.idle_seconds(connection)
            )
            return LeftIdle() if idle is not None and idle > idle_seconds * _MARGIN else None
        return None

    event.listen(engine, "handle_error", replace)


def ping_only_idle(engine: Engine, activity: ConnectionActivity, recent_seconds: float = RECENT_SECONDS) -> None:
    """Skip the pool's ping for a connection that was used a moment ago.

    SQLAlchemy's ping of asyncpg takes three round trips (BEGIN, an empty query, ROLLBACK), as many as the rest of a
    job. If the connection died within the last half second, its first statement fails and the job is released without
    counting the attempt. HikariCP's `aliveBypassWindowMs` is the same bound for the same reason.
    """
    ping = engine.dialect.do_ping

    def do_ping(connection: Any) -> bool:
        unused_seconds = activity.unused_seconds(connection)
        answers = (unused_seconds is not None and unused_seconds < recent_seconds) or ping(connection)
        activity.note(connection)  # time spent in the pool is not idle time of the transaction that begins
        return answers

    engine.dialect.do_ping = do_ping  # type: ignore[method-assign,assignment]  # the pool calls this one

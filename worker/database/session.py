"""The engine and its sessions, with the timeouts of every connection."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine

from worker.database.connections import ConnectionActivity, classify_disconnects, connect, ping_only_idle
from worker.database.guarded_session import GuardedSession


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Time limits of a connection to PostgreSQL, in seconds.

    The server's limits are shorter than the client's (`answer_seconds`). So the server ends a slow statement and gives
    the reason, and the client gives up only when the server is silent.
    """

    connect_seconds: float = 5.0
    lock_seconds: float = 5.0
    statement_seconds: float = 15.0
    idle_in_transaction_seconds: float = 8.0
    answer_seconds: float = 20.0


def database_url(url: str) -> URL:
    """Convert a PostgreSQL URL to SQLAlchemy's form.

    >>> database_url("postgres://ada:secret@db/app?sslmode=require").render_as_string(hide_password=True)
    'postgresql+asyncpg://ada:***@db/app?ssl=require'

    Raises:
        ValueError: not a PostgreSQL URL. The message does not repeat it.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        # The ValueError quotes the port it could not read, which is a part of an unescaped password.
        raise ValueError("not a database URL: postgresql://user:password@host:5432/database") from None
    if parsed.drivername not in {"postgres", "postgresql", "postgresql+asyncpg"}:
        raise ValueError(f"must be a postgresql:// URL, not {parsed.drivername}://")
    if (sslmode := parsed.query.get("sslmode")) is not None:
        # libpq's name for asyncpg's `ssl`
        parsed = parsed.difference_update_query(["sslmode"]).update_query_dict({"ssl": sslmode})
    return parsed.set(drivername="postgresql+asyncpg")


def create_engine(url: str, *, pool_size: int, timeouts: Timeouts = Timeouts(), name: str = "worker") -> AsyncEngine:
    """Create an engine with a bounded pool, a ping before use, and timeouts. Opens no connection.

    Args:
        url: see `database_url`.
        pool_size: maximum number of connections; a session needs one while it is in a transaction.
        timeouts: limits of every connection.
        name: `application_name` in PostgreSQL.
    """
    engine = create_async_engine(
        database_url(url),
        pool_pre_ping=True,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=timeouts.connect_seconds,
        # LIFO: reuse the same few connections, so their prepared statements stay cached.
        pool_use_lifo=True,
        # Errors do not quote the values of a statement.
        hide_parameters=True,
        connect_args={
            "async_creator_fn": connect,
            "timeout": timeouts.connect_seconds,
            "command_timeout": timeouts.answer_seconds,
            "server_settings": {
                "application_name": name,
                "timezone": "UTC",
                "lock_timeout": _ms(timeouts.lock_seconds),
                "statement_timeout": _ms(timeouts.statement_seconds),
                "idle_in_transaction_session_timeout": _ms(timeouts.idle_in_transaction_seconds),
            },
        },
    )
    activity = ConnectionActivity(engine.sync_engine)
    ping_only_idle(engine.sync_engine, activity)
    classify_disconnects(engine.sync_engine, activity, timeouts.idle_in_transaction_seconds)
    return engine


def create_sessions(engine: AsyncEngine, kind: type[AsyncSession] = AsyncSession) -> async_sessionmaker[AsyncSession]:
    """Create a session factory. Objects stay readable after the commit, without another query."""
    return async_sessionmaker(engine, class_=kind, expire_on_commit=False, sync_session_class=GuardedSession)


@asynccontextmanager
async def session_scope(sessions: async_sessionmaker[AsyncSession]) -> AsyncIterator[AsyncSession]:
    """Open a session, and commit it at the end. On an exception, roll back and raise it."""
    async with sessions() as session:
        try:
            yield session
            await session.commit()
        except BaseException:
            await session.rollback()
            raise


def _ms(seconds: float) -> str:
    return str(max(1, round(seconds * 1000)))  # 0 disables the timeout

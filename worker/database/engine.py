"""Connections, sessions and the creation of tables."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from sqlalchemy import URL, make_url, text
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine

from worker.database.broken import connect, tell_broken
from worker.database.models import Base
from worker.database.owned import OwnedSession
from worker.database.ping import ping_only_idle
from worker.database.uses import Uses
from worker.database.version import read_version

SCHEMA_LOCK = 0x75736572706F7374
"""Held by whoever makes or changes tables. Any number will do, as long as all versions of the worker use the same."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long anything that PostgreSQL is asked for may take, in seconds.

    Set on every connection. The server's own limits are shorter than the client's, so that a slow statement is
    ended by the server, with a reason, and only a server that has gone silent by the client.
    """

    connect_seconds: float = 5.0
    lock_seconds: float = 5.0
    statement_seconds: float = 15.0
    idle_in_transaction_seconds: float = 8.0
    answer_seconds: float = 20.0


def database_url(url: str) -> URL:
    """The URL in SQLAlchemy's form, from any of the usual ones.

    >>> database_url("postgres://ada:secret@db/app?sslmode=require").render_as_string(hide_password=True)
    'postgresql+asyncpg://ada:***@db/app?ssl=require'

    Raises:
        ValueError: when it is not a URL of PostgreSQL; the text does not repeat it.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        # A ValueError's text repeats what it took for the port: a part of the password, if that was not escaped.
        raise ValueError("not a database URL: postgresql://user:password@host:5432/database") from None
    if parsed.drivername not in {"postgres", "postgresql", "postgresql+asyncpg"}:
        raise ValueError(f"must be a postgresql:// URL, not {parsed.drivername}://")
    if (sslmode := parsed.query.get("sslmode")) is not None:
        # libpq's name for what asyncpg calls ssl.
        parsed = parsed.difference_update_query(["sslmode"]).update_query_dict({"ssl": sslmode})
    return parsed.set(drivername="postgresql+asyncpg")


def create_engine(url: str, *, pool_size: int, timeouts: Timeouts = Timeouts(), name: str = "worker") -> AsyncEngine:
    """An engine whose connections are pinged before use and limited in all they do. Opens nothing yet.

    Args:
        url: see `database_url`.
        pool_size: how many connections at the most; one for each session that runs at once.
        timeouts: limits for every connection.
        name: what PostgreSQL shows as the application's name.
    """
    engine = create_async_engine(
        database_url(url),
        pool_pre_ping=True,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=timeouts.connect_seconds,
        # The same few connections stay warm, and so do their prepared statements.
        pool_use_lifo=True,
        # No value of a statement reaches an error's text.
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
    uses = Uses(engine.sync_engine)
    ping_only_idle(engine.sync_engine, uses)
    tell_broken(engine.sync_engine, uses, timeouts.idle_in_transaction_seconds)
    return engine


def create_sessions(engine: AsyncEngine, kind: type[AsyncSession] = AsyncSession) -> async_sessionmaker[AsyncSession]:
    """Sessions whose objects stay readable after the commit, without another query."""
    return async_sessionmaker(engine, class_=kind, expire_on_commit=False, sync_session_class=OwnedSession)


@asynccontextmanager
async def session_scope(sessions: async_sessionmaker[AsyncSession]) -> AsyncIterator[AsyncSession]:
    """A session that commits at the end, or rolls everything back and raises on."""
    async with sessions() as session:
        try:
            yield session
            await session.commit()
        except BaseException:
            await session.rollback()
            raise


async def create_tables(engine: AsyncEngine) -> None:
    """Create the tables that are missing. Safe when many workers start at once on an empty database.

    A database that has a version is left to `worker migrate`: what is missing there belongs to a step of its own.
    """
    async with engine.begin() as connection:
        # Without the lock two CREATE TABLE IF NOT EXISTS may both see nothing and one of them fails.
        await connection.execute(text("SET LOCAL lock_timeout = '60s'"))
        await connection.execute(text("SET LOCAL statement_timeout = '60s'"))
        await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": SCHEMA_LOCK})
        if await read_version(connection) is None:
            await connection.run_sync(Base.metadata.create_all)


def _ms(seconds: float) -> str:
    # At least one: nought would lift the limit.
    return str(max(1, round(seconds * 1000)))

"""What the oracle reads from PostgreSQL: the tables, and the log that triggers wrote. It uses no code of the worker."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import asyncpg  # type: ignore[import-untyped]

_TRIGGERS = Path(__file__).with_name("triggers.sql")
_TABLES = "users, posts, job_ledger, effect_log, ledger_log, ledger_changes, overlap_log"


@dataclass(frozen=True, slots=True)
class Effect:
    """A row that was written; only a post has an `author_id`."""

    seq: int
    op: str
    tbl: str
    row_id: int
    text: str
    author_id: int | None
    xid: str


@dataclass(frozen=True, slots=True)
class LedgerInsert:
    """A committed insert into the ledger, with the times of its transaction by PostgreSQL's clock."""

    job_id: str
    xid: str
    began: datetime
    committed: datetime


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """A row of the ledger. `seq` is its place among all inserts, or None if no insert was logged."""

    job_id: str
    outcome: str
    code: str | None
    reply: Any
    seq: int | None


@dataclass(frozen=True, slots=True)
class Observations:
    """Everything the database recorded of a run."""

    ledger: dict[str, LedgerRow]
    inserts: Sequence[LedgerInsert]
    effects: Sequence[Effect]
    changes: Sequence[tuple[str, str, str]]
    """Changed outcomes: job id, before, after."""
    overlaps: Sequence[tuple[str, str | None]]
    """Job id, and the holder of its key if it was still visible."""
    overlap_count: int
    concurrent_attempts: int
    users: dict[int, dict[str, Any]]
    posts: dict[int, dict[str, Any]]


async def install(database: asyncpg.Connection) -> None:
    """Create the triggers and their tables."""
    await database.execute(_TRIGGERS.read_text())


async def reset(database: asyncpg.Connection) -> None:
    """Empty all tables and reset the counters."""
    await database.execute(f"TRUNCATE {_TABLES} RESTART IDENTITY CASCADE")  # names of this module
    await database.execute("SELECT setval('overlap_count', 1, false), setval('concurrent_attempts', 1, false)")


async def read(database: asyncpg.Connection) -> Observations:
    rows = [
        LedgerRow(row["job_id"], row["outcome"], row["code"], json.loads(row["reply"] or "null"), row["seq"])
        for row in await database.fetch(_LEDGER)
    ]
    overlap_count, concurrent_attempts = await database.fetchrow(_COUNTERS)
    users = await database.fetch("SELECT id, email, username, is_active FROM users")
    posts = await database.fetch("SELECT id, title, author_id FROM posts")
    return Observations(
        ledger={row.job_id: row for row in rows},
        inserts=[LedgerInsert(*row) for row in await database.fetch(_INSERTS)],
        effects=[Effect(*row) for row in await database.fetch(_EFFECTS)],
        changes=[tuple(row) for row in await database.fetch("SELECT job_id, before, after FROM ledger_changes")],
        overlaps=[tuple(row) for row in await database.fetch("SELECT job_id, holder FROM overlap_log")],
        overlap_count=overlap_count,
        concurrent_attempts=concurrent_attempts,
        users={row["id"]: dict(row) for row in users},
        posts={row["id"]: dict(row) for row in posts},
    )


async def count_connections(database: asyncpg.Connection) -> tuple[int, int]:
    """The number of connections of the workers, and how many of them are idle in a transaction."""
    row = await database.fetchrow(_CONNECTIONS)
    return row["all"], row["idle"]


async def count_blocked(database: asyncpg.Connection) -> int:
    """The number of connections of the workers that wait for a lock."""
    return int(await database.fetchval(_BLOCKED))


async def longest_gap_seconds(database: asyncpg.Connection) -> float:
    """The longest time between two consecutive effects."""
    return float(await database.fetchval(_GAP) or 0)


_LEDGER = """
SELECT l.job_id, l.outcome, l.code, l.reply::text AS reply, max(g.seq) AS seq
FROM job_ledger l LEFT JOIN ledger_log g USING (job_id) GROUP BY l.job_id
"""
# Needs track_commit_timestamp.
_INSERTS = "SELECT job_id, xid::text, began, pg_xact_commit_timestamp(xid::xid) FROM ledger_log ORDER BY seq"
_EFFECTS = "SELECT seq, op, tbl, row_id, coalesce(written, ''), author_id, xid::text FROM effect_log ORDER BY seq"
_COUNTERS = """
SELECT (SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM overlap_count),
       (SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM concurrent_attempts)
"""
_CONNECTIONS = """
SELECT count(*) AS all, count(*) FILTER (WHERE state LIKE 'idle in transaction%') AS idle
FROM pg_stat_activity WHERE application_name = 'worker'
"""
_BLOCKED = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'worker' AND wait_event_type = 'Lock'"
_GAP = "SELECT max(extract(epoch FROM gap)) FROM (SELECT at - lag(at) OVER (ORDER BY at) AS gap FROM effect_log) g"

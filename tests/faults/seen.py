"""What the tables hold and what happened to them, as triggers noted it. Knows the tables, none of the worker's code."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import asyncpg  # type: ignore[import-untyped]

_TRIGGERS = Path(__file__).with_name("triggers.sql")
_NOTED = "users, posts, job_ledger, effect_log, ledger_log, ledger_changes, overlap_log"


@dataclass(frozen=True, slots=True)
class Effect:
    """A row that was written; `author_id` is that of a post."""

    seq: int
    op: str
    tbl: str
    row_id: int
    text: str
    author_id: int | None
    xid: str


@dataclass(frozen=True, slots=True)
class Entered:
    """A row that the ledger was given, and the transaction that gave it."""

    job_id: str
    xid: str
    began: datetime
    """The transaction, by PostgreSQL's clock; the commit has a time of the same clock."""
    committed: datetime


@dataclass(frozen=True, slots=True)
class Entry:
    """A row of the ledger. `seq` is its place among all that were entered, or None when no entry was noted."""

    job_id: str
    outcome: str
    code: str | None
    reply: Any
    seq: int | None


@dataclass(frozen=True, slots=True)
class Seen:
    """All that the database holds of a run."""

    ledger: dict[str, Entry]
    entered: Sequence[Entered]
    """Each committed entry, in order."""
    effects: Sequence[Effect]
    changes: Sequence[tuple[str, str, str]]
    """Of outcomes: job id, what it was, what it became."""
    overlaps: Sequence[tuple[str, str | None]]
    """Job id, and who had the key's transaction open, as far as that was still to be seen."""
    overlaps_seen: int
    twice_at_once: int
    users: dict[int, dict[str, Any]]
    posts: dict[int, dict[str, Any]]


async def install(database: asyncpg.Connection) -> None:
    """Begin to note, on tables that are there."""
    await database.execute(_TRIGGERS.read_text())


async def reset(database: asyncpg.Connection) -> None:
    """Empty all tables, and forget what was noted."""
    await database.execute(f"TRUNCATE {_NOTED} RESTART IDENTITY CASCADE")  # names of this module
    await database.execute("SELECT setval('seen_overlaps', 1, false), setval('seen_twice_at_once', 1, false)")


async def look(database: asyncpg.Connection) -> Seen:
    """Read all of it."""
    entries = [
        Entry(row["job_id"], row["outcome"], row["code"], json.loads(row["reply"] or "null"), row["seq"])
        for row in await database.fetch(_LEDGER)
    ]
    overlaps_seen, twice = await database.fetchrow(_SEQUENCES)
    return Seen(
        ledger={entry.job_id: entry for entry in entries},
        entered=[Entered(*row) for row in await database.fetch(_ENTERED)],
        effects=[Effect(*row) for row in await database.fetch(_EFFECTS)],
        changes=[tuple(row) for row in await database.fetch("SELECT job_id, was, becomes FROM ledger_changes")],
        overlaps=[tuple(row) for row in await database.fetch("SELECT job_id, holder FROM overlap_log")],
        overlaps_seen=overlaps_seen,
        twice_at_once=twice,
        users={
            row["id"]: dict(row) for row in await database.fetch("SELECT id, email, username, is_active FROM users")
        },
        posts={row["id"]: dict(row) for row in await database.fetch("SELECT id, title, author_id FROM posts")},
    )


async def connections(database: asyncpg.Connection) -> tuple[int, int]:
    """How many connections the workers have, and how many of them are idle in a transaction."""
    row = await database.fetchrow(_CONNECTIONS)
    return row["all"], row["idle"]


async def blocked(database: asyncpg.Connection) -> int:
    """How many of the workers' connections wait for a lock."""
    return int(await database.fetchval(_BLOCKED))


async def longest_gap_seconds(database: asyncpg.Connection) -> float:
    """The longest time between two effects, one after the other."""
    return float(await database.fetchval(_GAP) or 0)


_LEDGER = """
SELECT l.job_id, l.outcome, l.code, l.reply::text AS reply, max(g.seq) AS seq
FROM job_ledger l LEFT JOIN ledger_log g USING (job_id) GROUP BY l.job_id
"""
# Needs a server that keeps the times of commits.
_ENTERED = """
SELECT job_id, xid::text, began, pg_xact_commit_timestamp(xid::xid) FROM ledger_log ORDER BY seq
"""
_EFFECTS = "SELECT seq, op, tbl, row_id, coalesce(written, ''), author_id, xid::text FROM effect_log ORDER BY seq"
_SEQUENCES = """
SELECT (SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM seen_overlaps),
       (SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM seen_twice_at_once)
"""
_CONNECTIONS = """
SELECT count(*) AS all, count(*) FILTER (WHERE state LIKE 'idle in transaction%') AS idle
FROM pg_stat_activity WHERE application_name = 'worker'
"""
_BLOCKED = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'worker' AND wait_event_type = 'Lock'"
_GAP = "SELECT max(extract(epoch FROM gap)) FROM (SELECT at - lag(at) OVER (ORDER BY at) AS gap FROM effect_log) g"

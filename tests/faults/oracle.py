"""What the tables must hold after a run, and whether they do. Knows the wire and the tables, none of the worker's code.

Triggers note every effect and every ledger row with the transaction that made it. An effect belongs to the job whose
ledger row was written in its transaction, so that nothing in the worker needs to help.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

import asyncpg  # type: ignore[import-untyped]

# The sequence is taken while the row is locked, so for one row its order is the order of the commits.
_TRIGGERS = """
CREATE TABLE effect_log (
    seq bigserial PRIMARY KEY, xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    op text NOT NULL, tbl text NOT NULL, row_id bigint NOT NULL, said text,
    at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE TABLE ledger_log (xid xid8 NOT NULL DEFAULT pg_current_xact_id(), job_id text NOT NULL, outcome text NOT NULL);
CREATE FUNCTION note_effect() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE r record;
BEGIN
    IF TG_OP = 'DELETE' THEN r := OLD; ELSE r := NEW; END IF;
    INSERT INTO effect_log (op, tbl, row_id, said)
    VALUES (TG_OP, TG_TABLE_NAME, r.id, CASE TG_TABLE_NAME WHEN 'users' THEN to_jsonb(r)->>'username'
                                                           ELSE to_jsonb(r)->>'title' END);
    RETURN NULL;
END $$;
CREATE FUNCTION note_ledger() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN INSERT INTO ledger_log (job_id, outcome) VALUES (NEW.job_id, NEW.outcome); RETURN NULL; END $$;
CREATE TRIGGER effect AFTER INSERT OR UPDATE OR DELETE ON users FOR EACH ROW EXECUTE FUNCTION note_effect();
CREATE TRIGGER effect AFTER INSERT OR UPDATE OR DELETE ON posts FOR EACH ROW EXECUTE FUNCTION note_effect();
CREATE TRIGGER entry AFTER INSERT ON job_ledger FOR EACH ROW EXECUTE FUNCTION note_ledger();
"""


@dataclass
class Verdict:
    """What is wrong, by invariant; empty when all is well."""

    jobs: int = 0
    wrong: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def __str__(self) -> str:
        lines = [f"{name}: {len(found)}, as {found[:3]}" for name, found in self.wrong.items()]
        return f"{self.jobs} jobs; " + ("; ".join(lines) or "nothing wrong")


async def install(database: asyncpg.Connection) -> None:
    """Begin to note, on tables that are there."""
    await database.execute(_TRIGGERS)


async def check(database: asyncpg.Connection, outcomes: dict[str, str], changes: dict[int, list[str]]) -> Verdict:
    """Compare the tables with what the client knows.

    Args:
        database: a connection of the oracle's own.
        outcomes: for each accepted job the outcome that the client was told: done, rejected, dead, or unknown.
        changes: for each user the usernames that were asked for, in the order in which the jobs were accepted.
    """
    verdict = Verdict(jobs=len(outcomes))
    ledger = {row["job_id"]: row["outcome"] for row in await database.fetch("SELECT job_id, outcome FROM job_ledger")}
    for job_id, told in outcomes.items():
        if job_id not in ledger:
            verdict.wrong["I1 lost"].append(job_id)
        elif ledger[job_id] != told:
            verdict.wrong["I6 the outcome changed"].append(f"{job_id}: told {told}, is {ledger[job_id]}")
    entries = Counter(row["job_id"] for row in await database.fetch("SELECT job_id FROM ledger_log"))
    verdict.wrong["I2 entered twice"] += [job_id for job_id, times in entries.items() if times > 1]

    effects = await database.fetch(_EFFECTS)
    for row in effects:
        if row["job_id"] is None:
            verdict.wrong["I3 an effect without a job"].append(f"{row['op']} {row['tbl']} {row['row_id']}")
        elif row["times"] > 1:
            verdict.wrong["I2 doubled"].append(row["job_id"])
    for row in await database.fetch(_NAMES):
        asked = changes.get(row["row_id"], [])
        place = {name: number for number, name in enumerate(asked)}
        places = [place[name] for name in row["names"] if name in place]
        if places != sorted(places):
            verdict.wrong["I4 out of order"].append(f"user {row['row_id']}")
    verdict.wrong = defaultdict(list, {name: found for name, found in verdict.wrong.items() if found})
    return verdict


async def told_by_ledger(database: asyncpg.Connection) -> dict[str, str]:
    """The outcomes as the ledger has them: for loads whose results would take too long to be read one by one."""
    return {row["job_id"]: row["outcome"] for row in await database.fetch("SELECT job_id, outcome FROM job_ledger")}


async def longest_gap_seconds(database: asyncpg.Connection) -> float:
    """The longest time between two effects, one after the other."""
    gap = "SELECT max(extract(epoch FROM gap)) FROM (SELECT at - lag(at) OVER (ORDER BY at) AS gap FROM effect_log) g"
    return float(await database.fetchval(gap))


async def stuck(database: asyncpg.Connection) -> Any:
    """How many connections of workers are idle in a transaction."""
    return await database.fetchval(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'worker' AND state LIKE 'idle in transaction%'"
    )


# A deleted user's posts go by the foreign key: only the effects on the row that the job names count once.
_EFFECTS = """
SELECT e.op, e.tbl, min(e.row_id) AS row_id, l.job_id, count(*) AS times
FROM effect_log e LEFT JOIN ledger_log l ON l.xid = e.xid AND l.outcome = 'done'
WHERE NOT (e.op = 'DELETE' AND e.tbl = 'posts')
GROUP BY e.op, e.tbl, e.xid, l.job_id
"""
_NAMES = """
SELECT row_id, array_agg(said ORDER BY seq) AS names FROM effect_log
WHERE op = 'UPDATE' AND tbl = 'users' GROUP BY row_id
"""

"""What tables really are, by PostgreSQL's own catalog: all that a migration could have made otherwise."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import ARRAY, Connection, Text, bindparam, text

Kind = Literal["table", "option", "column", "sequence", "constraint", "unique index", "index"]


@dataclass(frozen=True, slots=True, order=True)
class Fact:
    """One thing that is so of a table."""

    kind: Kind
    what: str

    def __str__(self) -> str:
        return f"{self.kind} {self.what}"


# Found by the search path, as the worker's own statements find them. `NOT NULL` is told with the column: before
# PostgreSQL 18 it was no constraint. Whether a table is temporary is left out.
_FACTS = text("""
WITH ours AS (
    SELECT pg_class.* FROM unnest(:names) AS name JOIN pg_class ON pg_class.oid = to_regclass(quote_ident(name))
)
SELECT 'table' AS kind, relname || CASE relkind WHEN 'r' THEN '' ELSE ', of the kind ' || relkind::text END AS what
FROM ours
UNION ALL
SELECT 'option', relname || ': ' || option FROM ours, unnest(reloptions) AS option
UNION ALL
SELECT 'column', concat_ws(' ',
    relname || '.' || attname,
    format_type(atttypid, atttypmod),
    CASE WHEN attcollation <> typcollation THEN 'COLLATE ' || attcollation::regcollation END,
    CASE WHEN attnotnull THEN 'NOT NULL' END,
    CASE attidentity::text WHEN 'a' THEN 'ALWAYS AS IDENTITY' WHEN 'd' THEN 'BY DEFAULT AS IDENTITY' END,
    CASE WHEN attgenerated <> '' THEN 'GENERATED AS' WHEN atthasdef THEN 'DEFAULT' END,
    pg_get_expr(adbin, adrelid, true)
)
FROM ours
JOIN pg_attribute ON attrelid = ours.oid AND attnum > 0 AND NOT attisdropped
JOIN pg_type ON pg_type.oid = atttypid
LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
UNION ALL
SELECT 'sequence', concat_ws(' ', relname || '.' || attname, format_type(seqtypid, NULL), 'START', seqstart,
    'INCREMENT', seqincrement, 'FROM', seqmin, 'TO', seqmax, 'CACHE', seqcache, CASE WHEN seqcycle THEN 'CYCLE' END)
FROM ours
JOIN pg_attribute ON attrelid = ours.oid AND attidentity <> ''
JOIN pg_depend ON refclassid = 'pg_class'::regclass AND refobjid = attrelid AND refobjsubid = attnum
    AND classid = 'pg_class'::regclass AND deptype = 'i'
JOIN pg_sequence ON seqrelid = objid
UNION ALL
SELECT 'constraint', concat_ws(' ', relname || ':', conname, pg_get_constraintdef(pg_constraint.oid, true))
FROM ours JOIN pg_constraint ON conrelid = ours.oid AND contype <> 'n'
UNION ALL
SELECT CASE WHEN indisunique THEN 'unique index' ELSE 'index' END,
    pg_get_indexdef(indexrelid, 0, true) || CASE WHEN indisvalid THEN '' ELSE ', not valid' END
FROM ours JOIN pg_index ON indrelid = ours.oid
WHERE NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid AND contype IN ('p', 'u', 'x'))
""").bindparams(bindparam("names", type_=ARRAY(Text)))


def facts(connection: Connection, tables: Iterable[str]) -> frozenset[Fact]:
    """All that is so of those of these tables that there are."""
    rows = connection.execute(_FACTS, {"names": sorted(tables)})
    return frozenset(Fact(kind, what) for kind, what in rows)


def differences(found: frozenset[Fact], wanted: frozenset[Fact]) -> list[str]:
    """What keeps tables from being those that are wanted, a line each.

    What somebody may have tuned is no difference: storage options, and indexes that forbid nothing.

    >>> differences(frozenset({Fact("index", "more")}), frozenset({Fact("option", "posts: fillfactor=70")}))
    []
    """
    missing = [f"missing: {fact}" for fact in sorted(wanted - found) if fact.kind != "option"]
    others = [f"not expected: {fact}" for fact in sorted(found - wanted) if fact.kind not in {"option", "index"}]
    return missing + others

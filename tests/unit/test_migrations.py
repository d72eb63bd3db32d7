"""The migration steps form one line and follow the rule of docs/decisions/0008."""

import re
from itertools import pairwise
from pathlib import Path

import pytest

from worker.database import migrations
from worker.database.migrate import as_sql, versions
from worker.database.version import HEAD

# Statements that break a worker of an older release.
NARROWS = re.compile(
    r"\bDROP (?!DEFAULT|NOT NULL)|\bRENAME\b|\bSET NOT NULL\b|\bALTER (COLUMN )?\w+ (SET DATA )?TYPE\b"
    r"|\bADD CONSTRAINT\b|\bCREATE UNIQUE INDEX\b|\bADD COLUMN (?!.*\bDEFAULT\b).*\bNOT NULL\b",
    re.IGNORECASE,
)


def needs(version: str) -> str:
    return version.partition("_needs_")[2]


def test_the_last_step_is_the_version_of_the_worker() -> None:
    assert versions()[-1] == HEAD


def test_steps_are_numbered_without_a_gap_and_never_lower_the_oldest_worker() -> None:
    for number, version in enumerate(versions(), start=1):
        assert re.fullmatch(rf"{number:04}_needs_\d{{4}}", version)
        assert "0001" <= needs(version) <= version[:4]
    for before, after in pairwise(versions()):
        assert needs(before) <= needs(after)


def test_a_file_has_the_number_of_its_step_and_no_downgrade() -> None:
    files = sorted(Path(migrations.__file__).parent.glob("versions/[0-9]*.py"))

    assert [path.name[:4] for path in files] == [version[:4] for version in versions()]
    assert [path.name for path in files if "def downgrade" in path.read_text()] == []


def test_a_step_that_keeps_the_oldest_worker_only_widens() -> None:
    for before, after in pairwise(versions()):
        if needs(before) == needs(after):
            assert NARROWS.search(as_sql(before, after)) is None, f"{after} must need a later worker"


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE posts",
        "ALTER TABLE posts DROP COLUMN title",
        "ALTER TABLE posts RENAME title TO name",
        "ALTER TABLE posts ALTER COLUMN title SET NOT NULL",
        "ALTER TABLE posts ALTER COLUMN title TYPE TEXT",
        "ALTER TABLE posts ADD CONSTRAINT ck_posts_title CHECK (title <> '')",
        "CREATE UNIQUE INDEX ix_posts_title ON posts (title)",
        "ALTER TABLE posts ADD COLUMN made_at TIMESTAMP WITH TIME ZONE NOT NULL",
    ],
)
def test_a_narrowing_statement_is_detected(statement: str) -> None:
    assert NARROWS.search(statement)


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE tags (id BIGINT NOT NULL)",
        "CREATE INDEX ix_posts_title ON posts (title)",
        "ALTER TABLE posts ADD COLUMN made_at TIMESTAMP WITH TIME ZONE",
        "ALTER TABLE posts ADD COLUMN made_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL",
        "ALTER TABLE posts ALTER COLUMN title DROP NOT NULL",
    ],
)
def test_a_widening_statement_is_allowed(statement: str) -> None:
    assert not NARROWS.search(statement)

"""What the tests of migrations share: steps of later releases, and schemas as PostgreSQL's own programs see them."""

import re
import shutil
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.waiting import PATIENCE_SECONDS
from worker.database import migrate as migrating
from worker.database import migrations
from worker.database.migrate import versions
from worker.database.version import VERSION_TABLE, schema_status
from worker.embedded.programs import postgres_programs

# A later step, as another release may bring it: it widens, and keeps what is there.
SECOND = '''"""posts know when they were made"""
from alembic import op
import sqlalchemy as sa
revision = "0002_needs_0001"
down_revision = "0001_needs_0001"
def upgrade():
    op.add_column("posts", sa.Column("made_at", sa.DateTime(timezone=True)))
'''
# One that fails half-way.
THIRD = '''"""a mistake"""
from alembic import op
revision = "0003_needs_0001"
down_revision = "0002_needs_0001"
def upgrade():
    op.execute("ALTER TABLE posts ADD COLUMN half integer")
    op.execute("SELECT 1 / 0")
'''


def release(folder: Path, monkeypatch: pytest.MonkeyPatch, *steps: str) -> None:
    """Make the worker one of a later release, with more steps; they are kept in a folder that is not there yet."""
    shutil.copytree(Path(migrations.__file__).parent, folder)
    for step in steps:
        name = re.findall(r'^revision = "(.+)"', step, re.MULTILINE)[0]
        (folder / "versions" / f"{name}.py").write_text(step)
    monkeypatch.setattr(migrations, "__file__", str(folder / "__init__.py"))
    head = versions()[-1]
    monkeypatch.setattr(migrating, "HEAD", head)
    monkeypatch.setattr(migrating, "schema_status", partial(schema_status, head=head))


def dumped(engine: AsyncEngine, *options: str) -> str:
    """The whole schema, as pg_dump writes it."""
    program = postgres_programs(None) / "pg_dump"
    done = subprocess.run(
        [program, "--schema-only", *options, url_of(engine)],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    assert "CREATE TABLE" in done.stdout
    return re.sub(r"^\\(un)?restrict .*$", "", done.stdout, flags=re.MULTILINE)


def by_hand(script: str, url: str) -> None:
    """Run a script with psql."""
    command = [str(postgres_programs(None) / "psql"), "--no-psqlrc", "--set=ON_ERROR_STOP=1", url]
    done = subprocess.run(command, input=script, capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS)
    assert done.returncode == 0, done.stderr


def tables_of(engine: AsyncEngine) -> str:
    return dumped(engine, f"--exclude-table={VERSION_TABLE}")


def url_of(engine: AsyncEngine) -> str:
    return engine.url.set(drivername="postgresql").render_as_string(hide_password=False)


async def run(engine: AsyncEngine, *statements: str) -> None:
    async with engine.begin() as connection:
        for statement in statements:
            await connection.execute(text(statement))


async def ask(engine: AsyncEngine, question: str) -> Any:
    async with engine.connect() as connection:
        return await connection.scalar(text(question))

"""`worker migrate` reports what it did, and an error in one line, to people and to programs."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import asyncpg  # type: ignore[import-untyped]
import pytest
from sqlalchemy import text
from typer.testing import CliRunner, Result

from tests.integration.running import on_a_terminal, settings_of
from worker.cli import app
from worker.database import migrate as migrating
from worker.database.version import HEAD, SCHEMA_LOCK

UNREACHABLE = "postgresql://someone:hush@127.0.0.1:1/none"

Migrate = Callable[..., Any]
Query = Callable[..., Any]


@pytest.fixture
def run(empty_database_url: str, monkeypatch: pytest.MonkeyPatch) -> Migrate:
    """Runs `worker migrate` in a pipe, without REDIS_URL."""
    monkeypatch.delenv("REDIS_URL", raising=False)

    async def invoke(*words: str, database: str | None = empty_database_url) -> Result:
        if database is None:
            monkeypatch.delenv("DATABASE_URL", raising=False)
        else:
            monkeypatch.setenv("DATABASE_URL", database)
        done = await asyncio.to_thread(CliRunner().invoke, app, ["migrate", *words])
        assert "hush" not in done.output
        return done

    return invoke


@pytest.fixture
async def query(empty_database_url: str) -> AsyncIterator[Query]:
    """Runs a statement in the database of `run`."""
    connection = await asyncpg.connect(empty_database_url)
    yield connection.fetchval
    await connection.close()


def role(url: str, name: str) -> str:
    """The URL with another role and the password `hush`."""
    return f"postgresql://{name}:hush@{url.rpartition('@')[2]}"


# Output


async def test_the_output_is_one_json_object_in_a_pipe(run: Migrate) -> None:
    before = await run("--check")
    first = await run()
    second = await run()
    after = await run("--check")

    assert before.exit_code == 1
    check = json.loads(before.stdout)
    assert (check["version"], check["needed"], check["status"]) == (None, HEAD, "missing")
    assert "`worker migrate`" in check["detail"]
    assert (first.exit_code, second.exit_code) == (0, 0)
    steps = [{"version": HEAD, "description": "users, posts and the ledger of jobs"}]
    assert json.loads(first.stdout) == {"before": None, "after": HEAD, "steps": steps}
    assert json.loads(second.stdout) == {"before": HEAD, "after": HEAD, "steps": []}
    assert (after.exit_code, json.loads(after.stdout)["status"]) == (0, "current")
    assert first.stderr == second.stderr == before.stderr == ""


async def test_the_output_is_text_on_a_terminal(empty_database_url: str, redis_url: str) -> None:
    settings = settings_of(redis_url, empty_database_url)

    check_code, check = await on_a_terminal(settings, "migrate", "--check")
    code, output = await on_a_terminal(settings, "migrate")

    assert check_code == 1
    assert "run `worker migrate`" in check
    assert code == 0
    assert "applied" in output
    assert "users, posts and the ledger of jobs" in output
    assert f"the database is at {HEAD}" in output


async def test_sql_is_printed_without_a_database(run: Migrate) -> None:
    done = await run("--sql", database=None)

    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.startswith("BEGIN;")
    assert done.stdout.endswith("COMMIT;\n\n")
    assert "CREATE TABLE job_ledger" in done.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--sql", "--check"), "--sql goes alone"),
        (("--sql", "--json"), "--sql goes alone"),
        (("--from", HEAD), "--from goes with --sql"),
        (("--sql", "--from", "0009"), f"there is no version '0009': the versions are {HEAD}"),
    ],
)
async def test_options_that_exclude_each_other_are_refused(run: Migrate, words: tuple[str, ...], message: str) -> None:
    done = await run(*words)

    assert (done.exit_code, done.stdout) == (2, "")
    assert message in done.stderr


# Errors


@pytest.mark.parametrize("words", [(), ("--check",)])
async def test_tables_without_a_version_are_one_line(run: Migrate, query: Query, words: tuple[str, ...]) -> None:
    await query("CREATE TABLE users (id integer)")

    done = await run(*words)

    assert (done.exit_code, done.stdout) == (1, "")
    assert "tables without a version (users)" in done.stderr
    assert "rename them, or give the worker another database or schema" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("words", [(), ("--check",)])
async def test_a_database_that_is_too_new_names_the_way_out(run: Migrate, query: Query, words: tuple[str, ...]) -> None:
    await run()
    await query("UPDATE worker_alembic_version SET version_num = '0009_needs_0009'")

    done = await run(*words)

    assert done.exit_code == 1
    assert "run a newer worker" in done.output


@pytest.mark.parametrize("words", [(), ("--check",)])
async def test_a_database_that_cannot_be_used_is_one_line(
    run: Migrate, empty_database_url: str, words: tuple[str, ...]
) -> None:
    messages = {
        UNREACHABLE: "the database cannot be reached",
        role(empty_database_url, "postgres"): "the database refused the log-in",
        f"{empty_database_url}x": "the database does not exist",
    }
    for url, message in messages.items():
        done = await run(*words, database=url)
        assert (done.exit_code, done.stdout) == (1, ""), done.output
        assert done.stderr.startswith(message)
        assert done.stderr.count("\n") == 1


async def test_a_missing_privilege_is_one_line(run: Migrate, query: Query, empty_database_url: str) -> None:
    await query("CREATE ROLE stranger LOGIN PASSWORD 'hush'")
    try:
        creating = await run(database=role(empty_database_url, "stranger"))
        await run()
        reading = await run("--check", database=role(empty_database_url, "stranger"))
    finally:
        await query("DROP ROLE stranger")

    for done in (creating, reading):
        assert (done.exit_code, done.stdout) == (1, "")
        assert done.stderr.startswith("the role of DATABASE_URL lacks a privilege")
        assert done.stderr.count("\n") == 1


async def test_a_lock_that_is_held_is_one_line(run: Migrate, query: Query, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrating, "_WAIT_FOR_LOCK", text("SET LOCAL lock_timeout = '50ms'"))
    await query("SELECT pg_advisory_lock($1)", SCHEMA_LOCK)

    done = await run()

    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith("another transaction holds a lock that is needed, so nothing was changed")
    assert done.stderr.count("\n") == 1

"""Does `worker migrate` say what it does, and what is wrong in one line, to people and to programs?"""

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

NOWHERE = "postgresql://someone:hush@127.0.0.1:1/none"

Migrate = Callable[..., Any]
Query = Callable[..., Any]


@pytest.fixture
def run(empty_database_url: str, monkeypatch: pytest.MonkeyPatch) -> Migrate:
    """Runs `worker migrate` as if in a pipe, with no Redis named."""
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
    """Runs a statement in the database that `run` is about."""
    connection = await asyncpg.connect(empty_database_url)
    yield connection.fetchval
    await connection.close()


def role(url: str, name: str) -> str:
    """The URL with another role, whose password is `hush`."""
    return f"postgresql://{name}:hush@{url.rpartition('@')[2]}"


# What it says


async def test_in_a_pipe_it_is_one_json_object(run: Migrate) -> None:
    checked = await run("--check")
    first = await run()
    again = await run()
    checked_again = await run("--check")

    assert checked.exit_code == 1
    told = json.loads(checked.stdout)
    assert (told["version"], told["needed"], told["standing"]) == (None, HEAD, "missing")
    assert "`worker migrate`" in told["what"]
    assert (first.exit_code, again.exit_code) == (0, 0)
    steps = [{"version": HEAD, "description": "users, posts and the ledger of jobs", "how": "applied"}]
    assert json.loads(first.stdout) == {"before": None, "after": HEAD, "steps": steps}
    assert json.loads(again.stdout) == {"before": HEAD, "after": HEAD, "steps": []}
    assert (checked_again.exit_code, json.loads(checked_again.stdout)["standing"]) == (0, "current")
    assert first.stderr == again.stderr == checked.stderr == ""


async def test_on_a_terminal_it_is_lines(empty_database_url: str, redis_url: str) -> None:
    settings = settings_of(redis_url, empty_database_url)

    checked = await on_a_terminal(settings, "migrate", "--check")
    done = await on_a_terminal(settings, "migrate")

    assert checked[0] == 1
    assert "run `worker migrate`" in checked[1]
    code, told = done
    assert code == 0
    assert "applied" in told
    assert "users, posts and the ledger of jobs" in told
    assert f"the database is at {HEAD}" in told


async def test_foreign_tables_are_told_line_by_line(run: Migrate, query: Query) -> None:
    await query("CREATE TABLE users (id integer)")

    done = await run()

    assert (done.exit_code, done.stdout) == (1, "")
    assert "nothing was changed" in done.stderr
    assert "  not expected: column users.id integer\n" in done.stderr
    assert "  missing: table posts\n" in done.stderr


async def test_a_database_that_is_too_new_is_told(run: Migrate, query: Query) -> None:
    await run()
    await query("UPDATE worker_alembic_version SET version_num = '0009_needs_0009'")

    for words in ((), ("--check",)):
        done = await run(*words)
        assert done.exit_code == 1
        assert "run a newer worker" in done.output


async def test_sql_is_printed_without_a_database(run: Migrate) -> None:
    done = await run("--sql", database=None)

    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.startswith("BEGIN;")
    assert done.stdout.endswith("COMMIT;\n\n")
    assert "CREATE TABLE job_ledger" in done.stdout


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--sql", "--check"), "give --sql alone"),
        (("--sql", "--json"), "give --sql alone"),
        (("--from", HEAD), "--from goes with --sql"),
        (("--sql", "--from", "0009"), f"there is no version '0009': there are {HEAD}"),
    ],
)
async def test_words_that_make_no_sense_are_refused(run: Migrate, words: tuple[str, ...], told: str) -> None:
    done = await run(*words)

    assert (done.exit_code, done.stdout) == (2, "")
    assert told in done.stderr


# What can be wrong


@pytest.mark.parametrize("words", [(), ("--check",)])
async def test_what_is_wrong_with_the_database_is_one_line(
    run: Migrate, query: Query, empty_database_url: str, words: tuple[str, ...]
) -> None:
    wrong = {
        NOWHERE: "the database cannot be used: the database cannot be reached",
        role(empty_database_url, "postgres"): "the database cannot be used: the database refused the log-in",
        f"{empty_database_url}x": "the database cannot be used: the database does not exist",
    }
    for url, told in wrong.items():
        done = await run(*words, database=url)
        assert (done.exit_code, done.stdout) == (1, ""), done.output
        assert done.stderr.startswith(told)
        assert done.stderr.count("\n") == 1


async def test_a_missing_privilege_is_one_line(run: Migrate, query: Query, empty_database_url: str) -> None:
    await query("CREATE ROLE stranger LOGIN PASSWORD 'hush'")
    try:
        making = await run(database=role(empty_database_url, "stranger"))
        await run()
        reading = await run("--check", database=role(empty_database_url, "stranger"))
    finally:
        await query("DROP ROLE stranger")

    for done in (making, reading):
        assert (done.exit_code, done.stdout) == (1, "")
        assert done.stderr.startswith("the role of DATABASE_URL may not do that")
        assert done.stderr.count("\n") == 1


async def test_a_lock_that_is_held_is_one_line(run: Migrate, query: Query, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrating, "_WAIT_FOR_OTHERS", text("SET LOCAL lock_timeout = '50ms'"))
    await query("SELECT pg_advisory_lock($1)", SCHEMA_LOCK)

    done = await run()

    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith("somebody holds what has to be changed, so nothing was: run it again")
    assert done.stderr.count("\n") == 1

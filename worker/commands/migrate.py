"""`worker migrate`: bring the database's tables to the version that this worker needs, or report their version."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

import typer
from rich.console import Console
from rich.text import Text
from sqlalchemy.ext.asyncio import AsyncEngine

from worker.commands.common import AsJson, database_outage, for_people, print_json, settings_from, stop
from worker.database.connections import DATABASE_ERRORS, describe_error
from worker.database.session import Timeouts, create_engine
from worker.database.version import HEAD, SchemaError, explain, schema_status, version_of
from worker.model.failures import is_lock_timeout, lacks_privilege

T = TypeVar("T")


def migrate(
    *,
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; exit with 1 unless the tables are usable.")
    ] = False,
    sql: Annotated[bool, typer.Option("--sql", help="Print the SQL without connecting to a database.")] = False,
    since: Annotated[
        str | None,
        typer.Option("--from", metavar="VERSION", help="With `--sql`: the database's version; default: it is empty."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Bring the database's tables to the version that this worker needs. Needs `DATABASE_URL` only.

    All steps or none, in one process at a time. It does nothing when there is nothing to do. Workers with
    `WORKER_CREATE_TABLES=false` wait for this command.
    """
    if sql and (check or as_json):
        stop("--sql goes alone, or with --from")
    if since is not None and not sql:
        stop("--from goes with --sql: without it, the version is read from the database")
    if sql:
        _print_sql(since)
    elif check:
        _check(as_json=as_json)
    else:
        _migrate(as_json=as_json)


def _print_sql(since: str | None) -> None:
    from worker.database.migrate import as_sql, versions  # noqa: PLC0415  # loads Alembic, which no other command needs

    try:
        typer.echo(as_sql(since), nl=False)
    except KeyError:
        stop(f"there is no version {since!a}: the versions are {', '.join(versions())}")


def _check(*, as_json: bool) -> None:
    version = _on_database(version_of, Timeouts())
    status = schema_status(version)
    if for_people(as_json=as_json):
        _console().print(explain(version), style="green" if status.usable else "red")
    else:
        print_json({"version": version, "needed": HEAD, "status": status.value, "detail": explain(version)})
    raise typer.Exit(0 if status.usable else 1)


def _migrate(*, as_json: bool) -> None:
    from worker.database import migrate as migrations  # noqa: PLC0415  # see above

    migration = _on_database(migrations.migrate, migrations.TIMEOUTS)
    if not for_people(as_json=as_json):
        steps = [{"version": step.version, "description": step.description} for step in migration.steps]
        print_json({"before": migration.before, "after": migration.after, "steps": steps})
        return
    console = _console()
    for step in migration.steps:
        console.print(Text.assemble(("applied", "green"), f"  {step.version}  ", (step.description, "dim")))
    console.print(explain(migration.after))


def _on_database(act: Callable[[AsyncEngine], Awaitable[T]], timeouts: Timeouts) -> T:
    """Run something on the database. On an error, end the command with one line."""
    # The settings need a Redis, and this command uses none.
    settings = settings_from(REDIS_URL=os.environ.get("REDIS_URL", "redis://unused"))
    url = settings.database_url.get_secret_value()

    async def run() -> T:
        engine = create_engine(url, pool_size=1, timeouts=timeouts, name="worker-migrate")
        try:
            return await act(engine)
        finally:
            await engine.dispose()

    try:
        return asyncio.run(run())
    except SchemaError as error:
        stop(str(error), code=1)
    except DATABASE_ERRORS as error:
        stop(_describe(error), code=1)


def _describe(error: Exception) -> str:
    if lacks_privilege(error):
        return "the role of DATABASE_URL lacks a privilege, so nothing was changed: use the role that owns the tables"
    if is_lock_timeout(error):
        return "another transaction holds a lock that is needed, so nothing was changed: try again when it has ended"
    return database_outage(describe_error(error))


def _console() -> Console:
    return Console(highlight=False, markup=False, emoji=False, soft_wrap=True)

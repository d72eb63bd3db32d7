"""`worker migrate`: bring the database's tables to the version that this worker needs, or say how they stand."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

import asyncpg  # type: ignore[import-untyped]
import typer
from rich.console import Console
from rich.text import Text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from worker.commands.common import AsJson, for_people, print_json, settings_from, stop
from worker.database.connections import ConnectionLost, LeftIdle, Unreachable
from worker.database.session import Timeouts, create_engine
from worker.database.version import HEAD, NotMigrated, explain, schema_status, version_of
from worker.model.failures import is_lock_timeout, lacks_privilege
from worker.queue.status import database_trouble

T = TypeVar("T")


def migrate(
    *,
    check: Annotated[bool, typer.Option("--check", help="Change nothing; end with 1 unless it is up to date.")] = False,
    sql: Annotated[
        bool, typer.Option("--sql", help="Print the SQL, for somebody else to run; ask no database.")
    ] = False,
    since: Annotated[
        str | None,
        typer.Option("--from", metavar="VERSION", help="With `--sql`: where that database is; default: it is empty."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Bring the database's tables to the version that this worker needs. Needs `DATABASE_URL` only.

    All or nothing, one at a time, and nothing when nothing is to be done. Tables that a worker has made without it are
    adopted when they are as they should be. With `WORKER_CREATE_TABLES=false` workers wait for this command.
    """
    if sql and (check or as_json):
        stop("give --sql alone, or with --from")
    if since is not None and not sql:
        stop("--from goes with --sql: otherwise the database itself says where it is")
    if sql:
        _print_sql(since)
    elif check:
        _check(as_json=as_json)
    else:
        _migrate(as_json=as_json)


def _print_sql(since: str | None) -> None:
    from worker.database import migrate as database  # noqa: PLC0415  # Alembic, which no other command needs

    try:
        typer.echo(database.as_sql(since), nl=False)
    except KeyError:
        stop(f"there is no version {since!a}: there are {', '.join(database.versions())}")


def _check(*, as_json: bool) -> None:
    version = _on_database(version_of, Timeouts())
    found = schema_status(version)
    if for_people(as_json=as_json):
        _console().print(explain(version), style="green" if found.usable else "red")
    else:
        print_json({"version": version, "needed": HEAD, "standing": found.value, "what": explain(version)})
    raise typer.Exit(0 if found.usable else 1)


def _migrate(*, as_json: bool) -> None:
    from worker.database import migrate as database  # noqa: PLC0415  # see above

    try:
        done = _on_database(database.migrate, database.TIMEOUTS)
    except NotMigrated as error:
        stop(str(error), code=1)
    except database.Foreign as error:
        stop("\n  ".join([f"{error}, so nothing was changed:", *error.differences]), code=1)
    if not for_people(as_json=as_json):
        steps = [{"version": step.version, "description": step.description, "how": step.how} for step in done.steps]
        print_json({"before": done.before, "after": done.after, "steps": steps})
        return
    console = _console()
    for step in done.steps:
        console.print(Text.assemble((step.how, "green"), f"  {step.version}  ", (step.description, "dim")))
    console.print(explain(done.after))


def _on_database(act: Callable[[AsyncEngine], Awaitable[T]], timeouts: Timeouts) -> T:
    """Do something with the database alone; when it cannot be done, one line ends the command."""
    # No Redis is asked for anything, so none needs to be named.
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
    except (SQLAlchemyError, asyncpg.PostgresError, ConnectionLost, LeftIdle, Unreachable, OSError) as error:
        stop(_trouble(error), code=1)


def _trouble(error: Exception) -> str:
    if lacks_privilege(error):
        return "the role of DATABASE_URL may not do that, so nothing was changed: use the one that owns the tables"
    if is_lock_timeout(error):
        return (
            "somebody holds what has to be changed, so nothing was: run it again, best when long transactions are over"
        )
    return f"the database cannot be used: {database_trouble(error)}"


def _console() -> Console:
    return Console(highlight=False, markup=False, emoji=False, soft_wrap=True)

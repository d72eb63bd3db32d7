"""What commands share: settings, connections for one command, errors in one line, and output."""

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any, NoReturn, TypeVar

import typer
from redis.asyncio import Redis
from redis.exceptions import RedisError
from rich.console import Console
from rich.table import Column, Table
from sqlalchemy.ext.asyncio import AsyncEngine

from producers._redis import close_redis, connect
from worker.database.connections import DATABASE_ERRORS
from worker.database.connections import describe_error as describe_database_error
from worker.database.session import create_engine
from worker.queue.availability import describe_error
from worker.settings import Settings, SettingsError

T = TypeVar("T")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on a terminal too; a pipe always gets JSON.")]

ANSWER_SECONDS = 3.0
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}

errors = Console(stderr=True, highlight=False)


@dataclass(frozen=True, slots=True)
class Servers:
    """The two servers, open while a command runs."""

    redis: Redis
    engine: AsyncEngine


def settings_from(**values: Any) -> Settings:
    """The settings of the environment, overridden by those values that are not None. Exits when one is invalid."""
    try:
        return Settings.load(**{name: value for name, value in values.items() if value is not None})
    except SettingsError as error:
        stop(str(error))


def stop(text: str, *, code: int = 2) -> NoReturn:
    """Print the reason in red and exit."""
    errors.print(text, style="red", soft_wrap=True, markup=False)
    raise typer.Exit(code)


def redis_outage(reason: str) -> str:
    """The line for a Redis that cannot be used."""
    return f"Redis cannot be used: {reason}; check the server and REDIS_URL"


def database_outage(reason: str) -> str:
    """The line for a PostgreSQL that cannot be used. Most reasons are whole sentences already.

    >>> database_outage("the database is starting up (SQLSTATE 57P03)")
    'the database is starting up (SQLSTATE 57P03); check the server and DATABASE_URL'
    """
    sentence = reason if reason.startswith("the ") else f"the database cannot be used: {reason}"
    return f"{sentence}; check the server and DATABASE_URL"


def with_servers(settings: Settings, act: Callable[[Servers], Coroutine[Any, Any, T]]) -> T:
    """Run a command on both servers. Exits with one line when a server cannot be used."""

    async def run() -> T:
        async with _servers(settings) as servers:
            return await act(servers)

    try:
        return asyncio.run(run())
    except RedisError as error:
        stop(redis_outage(describe_error(error)), code=1)
    except DATABASE_ERRORS as error:
        stop(database_outage(describe_database_error(error)), code=1)


@asynccontextmanager
async def _servers(settings: Settings) -> AsyncIterator[Servers]:
    url = settings.redis_url.get_secret_value()
    try:
        redis = connect(url, queue=settings.queue, answer_timeout_seconds=ANSWER_SECONDS)
    except ValueError as error:
        stop(f"REDIS_URL is {error}")
    engine = create_engine(settings.database_url.get_secret_value(), pool_size=1, name="worker-command")
    try:
        yield Servers(redis, engine)
    finally:
        await close_redis(redis)
        await engine.dispose()


def for_people(*, as_json: bool) -> bool:
    """Whether the output goes to a terminal and not to a program."""
    return sys.stdout.isatty() and not as_json


def console(*, soft_wrap: bool = False) -> Console:
    """Standard output for people. It prints text as it is, without markup."""
    return Console(highlight=False, markup=False, emoji=False, soft_wrap=soft_wrap)


def table(*columns: Column | str, **options: Any) -> Table:
    """A table without lines."""
    return Table(*columns, **{"box": None, "pad_edge": False, "header_style": "dim", "padding": (0, 3, 0, 0)} | options)


def print_json(answer: Mapping[str, Any]) -> None:
    """Print one JSON object as one line of ASCII, which every encoding of a pipe can carry."""
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def parse_age(text: str) -> timedelta:
    """An age as given on a command line.

    >>> parse_age("7d"), parse_age("90m")
    (datetime.timedelta(days=7), datetime.timedelta(seconds=5400))
    """
    match = re.fullmatch(r"(\d{1,6})([smhdw])", text)
    if match is None:
        raise typer.BadParameter("give a number and one of s, m, h, d, w, such as 90m or 7d")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})

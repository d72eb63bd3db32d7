"""What the commands share: settings or a line that says what is wrong, connections for one command, and output."""

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
from sqlalchemy.ext.asyncio import AsyncEngine

from producers._redis import connect
from worker.database.connections import DATABASE_ERRORS
from worker.database.connections import describe_error as describe_database_error
from worker.database.session import create_engine
from worker.queue.availability import describe_error
from worker.settings import Settings, SettingsError

T = TypeVar("T")

AsJson = Annotated[bool, typer.Option("--json", help="JSON also on a terminal; in a pipe it always is.")]

ANSWER_SECONDS = 3.0
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}

errors = Console(stderr=True, highlight=False)


@dataclass(frozen=True, slots=True)
class Servers:
    """The two servers, for as long as a command runs."""

    redis: Redis
    engine: AsyncEngine


def settings_from(**values: Any) -> Settings:
    """The environment's settings, with those values that are given before them; or the end of the command."""
    try:
        return Settings.load(**{name: value for name, value in values.items() if value is not None})
    except SettingsError as error:
        stop(str(error))


def stop(text: str, *, code: int = 2) -> NoReturn:
    """Say why the command ends, in red, and end it."""
    errors.print(text, style="red", soft_wrap=True, markup=False)
    raise typer.Exit(code)


def with_servers(settings: Settings, act: Callable[[Servers], Coroutine[Any, Any, T]]) -> T:
    """Run a command's work on both servers; a server that cannot be used ends the command with one line."""

    async def run() -> T:
        async with _servers(settings) as servers:
            return await act(servers)

    try:
        return asyncio.run(run())
    except RedisError as error:
        stop(f"Redis cannot be used: {describe_error(error)}", code=1)
    except DATABASE_ERRORS as error:
        stop(f"the database cannot be used: {describe_database_error(error)}", code=1)


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
        await redis.aclose()
        await redis.connection_pool.disconnect()
        await engine.dispose()


def for_people(*, as_json: bool) -> bool:
    """Whether the output is for a person."""
    return sys.stdout.isatty() and not as_json


def print_json(answer: Mapping[str, Any]) -> None:
    """Print one JSON object as one line of ASCII, so that no encoding of a pipe can spoil it."""
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def parse_age(text: str) -> timedelta:
    """A time as people write it on a command line.

    >>> parse_age("7d"), parse_age("90m")
    (datetime.timedelta(days=7), datetime.timedelta(seconds=5400))
    """
    match = re.fullmatch(r"(\d{1,6})([smhdw])", text)
    if match is None:
        raise typer.BadParameter("write a number and s, m, h, d or w, as in 90m or 7d")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})

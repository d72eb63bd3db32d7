"""Lua scripts: how one is loaded, kept by Redis and called; and those of this package, one operation a file."""

import hashlib
from asyncio import StreamWriter
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from hiredis import pack_command
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse, NoScriptError, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from producers import keys as key_names

AT_ONCE_BYTES = 64 * 1024
"""A command that asyncio takes at once, whatever the socket does: what it holds back before it makes writers wait."""


class NotSent(RedisError):
    """No connection could be made, so the script was not run. The cause is the connection's error."""


class Script:
    """A Lua script that Redis keeps by its hash, sent again whenever Redis has forgotten it."""

    def __init__(self, *sources: bytes) -> None:
        """Make one script of several texts, after the names of the keys that they use."""
        source = b"\n".join(sources)
        self._source = key_names.lua_names(source.decode()).encode() + source
        self._sha = hashlib.sha1(self._source, usedforsecurity=False).hexdigest()

    async def __call__(self, redis: Redis, keys: Sequence[str], args: Sequence[str | bytes | int]) -> Any:
        """Run the script and return what it returns.

        Raises:
            NotSent: when there was no connection, so that nothing can have happened.
            ConnectionError, TimeoutError, InvalidResponse: (of redis) when the answer was lost, so that it may have
                happened.
            ResponseError: (of redis) when Redis refused.
        """
        pool = redis.connection_pool
        try:
            connection = await pool.get_connection()
        except (RedisConnectionError, RedisTimeoutError, InvalidResponse, OSError) as error:
            raise NotSent(str(error)) from error
        try:
            try:
                return await _answer(connection, _packed("EVALSHA", self._sha, len(keys), *keys, *args))
            except NoScriptError:
                # Redis restarted, or somebody flushed its scripts: EVAL runs it and keeps it.
                return await _answer(connection, _packed("EVAL", self._source, len(keys), *keys, *args))
        finally:
            await pool.release(connection)


async def _answer(connection: AbstractConnection, command: bytes) -> Any:
    """Send a command and read what comes back."""
    writer = connection._writer  # noqa: SLF001
    # Not every connection has a socket: that of an in-memory Redis has none.
    if not isinstance(writer, StreamWriter) or len(command) > AT_ONCE_BYTES:
        await connection.send_packed_command(command)
    else:
        # redis-py would send it in a task of its own (`asyncio.wait_for`, before Python 3.12), so that a socket that
        # takes nothing more cannot hold it up for ever. What fits the buffer is handed over at once.
        await connection.check_health()  # type: ignore[no-untyped-call]
        writer.write(command)
    return await connection.read_response()


def _packed(*words: str | bytes | int) -> bytes:
    # In C: redis-py's own way was a tenth of what a job without a database costs a worker.
    packed: bytes = pack_command(words)  # type: ignore[arg-type]  # its stub knows tuples of one word only
    return packed


def lua(package: str, name: str) -> bytes:
    """The text of a file in a package."""
    return files(package).joinpath(name).read_bytes()


CLOCK, ORDER = lua(__package__, "scripts/clock.lua"), lua(__package__, "scripts/order.lua")
ENQUEUE = Script(CLOCK, lua(__package__, "scripts/enqueue.lua"))
CANCEL = Script(ORDER, lua(__package__, "scripts/cancel.lua"))

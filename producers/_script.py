"""Calling Lua scripts, and the scripts of this package: one operation per file."""

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

UNBLOCKED_BYTES = 64 * 1024
"""Asyncio's buffer takes a command of this size without waiting for the socket."""


class NotSent(RedisError):
    """No connection could be made, so the script did not run. The cause is the connection's error."""


class Script:
    """A Lua script, called by its hash and sent in full whenever Redis does not have it."""

    def __init__(self, *sources: bytes) -> None:
        """Join several sources into one script, after the names of the keys that they use."""
        source = b"\n".join(sources)
        self._source = key_names.lua_names(source.decode()).encode() + source
        self._sha = hashlib.sha1(self._source, usedforsecurity=False).hexdigest()

    async def __call__(self, redis: Redis, keys: Sequence[str], args: Sequence[str | bytes | int]) -> Any:
        """Run the script and return what it returns.

        Raises:
            NotSent: there was no connection; the script did not run.
            ConnectionError, TimeoutError, InvalidResponse: (of redis) the answer was lost; the script may have run.
            ResponseError: (of redis) Redis refused.
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
                # Redis restarted, or its scripts were flushed. EVAL runs the script and caches it.
                return await _answer(connection, _packed("EVAL", self._source, len(keys), *keys, *args))
        finally:
            await pool.release(connection)


async def _answer(connection: AbstractConnection, command: bytes) -> Any:
    """Send a command and read the answer."""
    writer = connection._writer  # noqa: SLF001
    # A connection to an in-memory Redis has no socket.
    if not isinstance(writer, StreamWriter) or len(command) > UNBLOCKED_BYTES:
        await connection.send_packed_command(command)
    else:
        # redis-py sends in a separate task (`asyncio.wait_for`, before Python 3.12), to limit the wait for a blocked
        # socket. A command that fits the buffer never waits.
        await connection.check_health()  # type: ignore[no-untyped-call]
        writer.write(command)
    return await connection.read_response()


def _packed(*words: str | bytes | int) -> bytes:
    # In C: packing in redis-py was a tenth of a worker's time for a job without a database.
    packed: bytes = pack_command(words)  # type: ignore[arg-type]  # its stub knows tuples of one word only
    return packed


def lua(package: str, name: str) -> bytes:
    """The source of a script in a package."""
    return files(package).joinpath(name).read_bytes()


CLOCK, ORDER = lua(__package__, "scripts/clock.lua"), lua(__package__, "scripts/order.lua")
ENQUEUE = Script(CLOCK, lua(__package__, "scripts/enqueue.lua"))
CANCEL = Script(ORDER, lua(__package__, "scripts/cancel.lua"))

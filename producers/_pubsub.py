"""Listening on channels of Redis, through lost connections: how a worker is woken and a producer told of results."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress

from redis.asyncio import Redis
from redis.exceptions import RedisError

RETRY_SECONDS = 1.0


class Listener:
    """Listens on channels and calls back with each message; listens again whenever the connection was lost.

    What is published meanwhile is missed: whoever relies on it looks for itself from time to time.
    """

    def __init__(self, redis: Redis, channels: Sequence[str], heard: Callable[[str, bytes], None]) -> None:
        self._redis = redis
        self._channels = channels
        self._heard = heard
        self.listening = asyncio.Event()
        """Set while the channels are subscribed."""

    async def run(self) -> None:
        """Listen until cancelled."""
        while True:
            with suppress(RedisError, OSError):
                await self._listen()
            self.listening.clear()
            await asyncio.sleep(RETRY_SECONDS)

    async def _listen(self) -> None:
        async with self._redis.pubsub() as pubsub:
            await pubsub.subscribe(*self._channels)
            while True:
                message = await pubsub.get_message(timeout=None)
                if message is None:
                    continue
                if message["type"] == "subscribe":
                    self.listening.set()
                elif message["type"] == "message":
                    self._heard(message["channel"].decode(), message["data"])

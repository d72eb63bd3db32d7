"""Subscriptions that survive lost connections: they wake workers and notify producers of results."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress

from redis.asyncio import Redis
from redis.exceptions import RedisError

RETRY_SECONDS = 1.0


class Listener:
    """Subscribes to channels and passes on each message; subscribes again after a lost connection.

    Messages published in between are lost, so its users poll as well.

    Args:
        redis: the client.
        channels: their names.
        on_message: called with the channel and the data of each message.
    """

    def __init__(self, redis: Redis, channels: Sequence[str], on_message: Callable[[str, bytes], None]) -> None:
        self._redis = redis
        self._channels = channels
        self._on_message = on_message
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
                    self._on_message(message["channel"].decode(), message["data"])

"""A TCP proxy in front of a server that delays, loses and breaks connections on demand."""

import asyncio
import random
import socket
import struct
from collections import deque
from contextlib import suppress
from typing import Literal, cast

from worker.embedded.ports import HOST, pick

Direction = Literal["request", "reply"]

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Proxy:
    """Forwards connections from a port of this host to a server.

    Args:
        target: the server's port.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = pick()
        self.random = random.Random(0)  # noqa: S311  # repeatable, not secret
        self.longest_delay_seconds = 0.0
        """The upper limit of the random delay of each piece of data."""
        self.is_bytewise = False
        """Data is forwarded byte by byte."""
        self.is_silent = False
        """No data is forwarded and neither side notices: a half-open connection."""
        self.loses_replies = False
        self._cut_within: Direction | None = None
        self._links: set[Link] = set()
        self._server: asyncio.Server | None = None

    @property
    def is_slow(self) -> bool:
        return self.is_bytewise or self.longest_delay_seconds > 0

    async def open(self) -> None:
        if self._server is None:
            loop = asyncio.get_running_loop()
            self._server = await loop.create_server(lambda: Link(self).client, HOST, self.port)

    def refuse(self) -> None:
        """Refuse new connections; existing ones continue."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def cut(self, within: Direction | None = None) -> None:
        """Reset all connections at once, or the next one that sends data in this direction, half-way through it."""
        if within is None:
            for link in list(self._links):
                link.reset()
        self._cut_within = within

    async def heal(self) -> None:
        """End all faults. Connections that have lost data are reset: their protocol is out of step."""
        self.longest_delay_seconds = 0.0
        self.is_bytewise = self.is_silent = self.loses_replies = False
        self._cut_within = None
        for link in list(self._links):
            if link.has_lost_data:
                link.reset()
        await self.open()

    async def close(self) -> None:
        self.refuse()
        self.cut()
        await asyncio.sleep(0)

    def add(self, link: "Link") -> None:
        self._links.add(link)

    def remove(self, link: "Link") -> None:
        self._links.discard(link)

    def take_cut(self, direction: Direction) -> bool:
        """Whether to reset the connection in the middle of this piece of data; true once for each request."""
        if self._cut_within != direction:
            return False
        self._cut_within = None
        return True

    def loses(self, direction: Direction) -> bool:
        return self.is_silent or (self.loses_replies and direction == "reply")


class Link:
    """One client and its connection to the server."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.has_lost_data = False
        self.client = _End(self, "request")
        self.server = _End(self, "reply")
        self.client.other, self.server.other = self.server, self.client
        self.connecting: asyncio.Task[None] | None = None

    async def connect(self) -> None:
        """Connect to the server; reset the client if that fails."""
        self.proxy.add(self)
        try:
            await asyncio.get_running_loop().create_connection(lambda: self.server, HOST, self.proxy.target)
        except OSError:
            self.reset()
            return
        if self.client.transport is None or self.client.transport.is_closing():
            self.reset()

    def reset(self) -> None:
        self.proxy.remove(self)
        for end in (self.client, self.server):
            end.abort()


class _End(asyncio.Protocol):
    """Forwards the data of one side to the other."""

    def __init__(self, link: Link, direction: Direction) -> None:
        self._link = link
        self._direction: Direction = direction
        self.other: _End
        self.transport: asyncio.Transport | None = None
        self._delayed: deque[bytes] = deque()
        self._early: list[bytes] = []
        self._forwarding: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        if self._direction == "request":
            self._link.connecting = asyncio.create_task(self._link.connect())
        early, self._early = self._early, []
        for data in early:
            self.send(data)

    def data_received(self, data: bytes) -> None:
        proxy = self._link.proxy
        if self._link.has_lost_data or proxy.loses(self._direction):
            self._link.has_lost_data = True
        elif proxy.take_cut(self._direction):
            self.other.send(data[: len(data) // 2])
            self._link.reset()
        elif self._forwarding is None and not proxy.is_slow:
            self.other.send(data)
        else:
            self._delayed.append(data)
            self._forwarding = self._forwarding or asyncio.create_task(self._forward_slowly())

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # whatever the reason is
        if not self._link.has_lost_data and not self._delayed:
            self._link.proxy.remove(self._link)
            if self.other.transport is not None:
                self.other.transport.close()  # data sent before the end still arrives
        elif self._direction == "request":
            self._link.reset()

    def send(self, data: bytes) -> None:
        """Send data to this side, as soon as it is connected."""
        if self.transport is None:
            self._early.append(data)
        elif not self.transport.is_closing():
            self.transport.write(data)

    def abort(self) -> None:
        """Reset the connection of this side."""
        if self._forwarding is not None:
            self._forwarding.cancel()
        if self.transport is not None and not self.transport.is_closing():
            with suppress(OSError):
                self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            self.transport.abort()

    async def _forward_slowly(self) -> None:
        proxy = self._link.proxy
        while self._delayed:
            data = self._delayed.popleft()
            await asyncio.sleep(proxy.random.uniform(0, proxy.longest_delay_seconds))
            for start in range(0, len(data), size := 1 if proxy.is_bytewise else len(data)):
                self.other.send(data[start : start + size])
                await asyncio.sleep(0)
        self._forwarding = None
        if self.transport is None or self.transport.is_closing():
            self._link.reset()

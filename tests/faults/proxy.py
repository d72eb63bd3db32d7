"""A TCP proxy that stands before a server and misbehaves on demand."""

import asyncio
import random
import socket
import struct
from collections import deque
from contextlib import suppress
from typing import Literal, cast

from worker.embedded.ports import HOST, pick

Way = Literal["request", "reply"]

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Proxy:
    """Stands before the server on a port of this host.

    Args:
        target: the server's port.
        chance: what delays are drawn from.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = pick()
        self.chance = random.Random(0)  # noqa: S311  # repeatable, not secret
        self.longest_delay_seconds = 0.0
        """Every piece of data is held back for up to so long."""
        self.bytewise = False
        """Data goes on byte by byte."""
        self.silent = False
        """Nothing gets through, and neither side notices: a half-open connection."""
        self.replies_lost = False
        """The answers of the server do not arrive."""
        self._cut_within: Way | None = None
        self._links: set[Link] = set()
        self._server: asyncio.Server | None = None

    @property
    def slow(self) -> bool:
        """Whether data is held back."""
        return self.bytewise or self.longest_delay_seconds > 0

    async def open(self) -> None:
        """Accept connections."""
        if self._server is None:
            loop = asyncio.get_running_loop()
            self._server = await loop.create_server(lambda: Link(self).client, HOST, self.port)

    def refuse(self) -> None:
        """Refuse connections; those that are there go on."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def cut(self, within: Way | None = None) -> None:
        """Reset all connections at once, or the next one that carries data, half-way through it."""
        if within is None:
            for link in list(self._links):
                link.reset()
        self._cut_within = within

    async def heal(self) -> None:
        """Behave. Connections that have lost data are reset: they can never be right again."""
        self.longest_delay_seconds = 0.0
        self.bytewise = self.silent = self.replies_lost = False
        self._cut_within = None
        for link in list(self._links):
            if link.lossy:
                link.reset()
        await self.open()

    async def close(self) -> None:
        """End all connections."""
        self.refuse()
        self.cut()
        await asyncio.sleep(0)

    def joined(self, link: "Link") -> None:
        """A client has come."""
        self._links.add(link)

    def left(self, link: "Link") -> None:
        """A connection is over."""
        self._links.discard(link)

    def cuts(self, way: Way) -> bool:
        """Whether this is the piece of data in the middle of which the connection is to be reset."""
        if self._cut_within != way:
            return False
        self._cut_within = None
        return True

    def loses(self, way: Way) -> bool:
        """Whether data on this way does not arrive."""
        return self.silent or (self.replies_lost and way == "reply")


class Link:
    """One client and its connection to the server."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.lossy = False
        self.client = _End(self, "request")
        self.server = _End(self, "reply")
        self.client.other, self.server.other = self.server, self.client
        self.joining: asyncio.Task[None] | None = None

    async def join(self) -> None:
        """Connect to the server; a client whose server is away is reset."""
        self.proxy.joined(self)
        try:
            await asyncio.get_running_loop().create_connection(lambda: self.server, HOST, self.proxy.target)
        except OSError:
            self.reset()
            return
        if self.client.transport is None or self.client.transport.is_closing():
            self.reset()

    def reset(self) -> None:
        """Break off both connections, as a router that has forgotten them does."""
        self.proxy.left(self)
        for end in (self.client, self.server):
            end.abort()


class _End(asyncio.Protocol):
    """Forwards the data of one side to the other."""

    def __init__(self, link: Link, way: Way) -> None:
        self._link = link
        self._way: Way = way
        self.other: _End
        self.transport: asyncio.Transport | None = None
        self._held: deque[bytes] = deque()
        self._early: list[bytes] = []
        self._holding: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        if self._way == "request":
            self._link.joining = asyncio.create_task(self._link.join())
        early, self._early = self._early, []
        for data in early:
            self.send(data)

    def data_received(self, data: bytes) -> None:
        proxy = self._link.proxy
        if self._link.lossy or proxy.loses(self._way):
            self._link.lossy = True
        elif proxy.cuts(self._way):
            self.other.send(data[: len(data) // 2])
            self._link.reset()
        elif self._holding is None and not proxy.slow:
            self.other.send(data)
        else:
            self._held.append(data)
            self._holding = self._holding or asyncio.create_task(self._pass_on())

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # whatever the reason is
        if not self._link.lossy and not self._held:
            self._link.proxy.left(self._link)
            if self.other.transport is not None:
                self.other.transport.close()  # data sent before the end still arrives
        elif self._way == "request":
            self._link.reset()

    def send(self, data: bytes) -> None:
        """Send data to this side, as soon as it is connected."""
        if self.transport is None:
            self._early.append(data)
        elif not self.transport.is_closing():
            self.transport.write(data)

    def abort(self) -> None:
        """End this side's connection with a reset."""
        if self._holding is not None:
            self._holding.cancel()
        if self.transport is not None and not self.transport.is_closing():
            with suppress(OSError):
                self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            self.transport.abort()

    async def _pass_on(self) -> None:
        proxy = self._link.proxy
        while self._held:
            data = self._held.popleft()
            await asyncio.sleep(proxy.chance.uniform(0, proxy.longest_delay_seconds))
            for start in range(0, len(data), size := 1 if proxy.bytewise else len(data)):
                self.other.send(data[start : start + size])
                await asyncio.sleep(0)
        self._holding = None
        if self.transport is None or self.transport.is_closing():
            self._link.reset()

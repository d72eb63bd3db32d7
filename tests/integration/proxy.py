"""A TCP proxy between an engine and PostgreSQL that refuses, falls silent or loses answers."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager


class Proxy:
    """Leads to the server of a URL. Its attributes may be changed at any time."""

    def __init__(self, url: str) -> None:
        self._login, _, rest = url.rpartition("@")
        self._server, _, self._database = rest.partition("/")
        self._connections: set[asyncio.Task[None]] = set()
        self.refusing = False
        """New connections are closed at once."""
        self.silent = False
        """Connections stay open, and nothing passes."""
        self.lose_answer_to: bytes | None = None
        """The answer to a request with these bytes, and all that follows on its connection, does not arrive."""
        self.lost = asyncio.Event()
        """An answer was lost."""

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[str]:
        """Listen. Yields the URL that leads through the proxy."""
        listener = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        try:
            yield f"{self._login}@127.0.0.1:{listener.sockets[0].getsockname()[1]}/{self._database}"
        finally:
            listener.close()
            await self.cut()

    async def cut(self) -> None:
        """End all connections."""
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.create_task(self._connect(reader, writer))
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with _aborted(writer):
            if self.refusing:
                return
            host, _, port = self._server.partition(":")
            server_reader, server_writer = await asyncio.open_connection(host, int(port))
            losing = asyncio.Event()
            with _aborted(server_writer):
                pumps = {
                    asyncio.create_task(self._to_server(reader, server_writer, losing)),
                    asyncio.create_task(self._to_client(server_reader, writer, losing)),
                }
                try:
                    await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for pump in pumps:
                        pump.cancel()
                    await asyncio.gather(*pumps, return_exceptions=True)

    async def _to_server(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, losing: asyncio.Event
    ) -> None:
        while data := await reader.read(65_536):
            if self.lose_answer_to is not None and self.lose_answer_to in data:
                losing.set()
            if not self.silent:
                writer.write(data)

    async def _to_client(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, losing: asyncio.Event
    ) -> None:
        while data := await reader.read(65_536):
            if losing.is_set():
                self.lost.set()
                return
            if not self.silent:
                writer.write(data)


@contextmanager
def _aborted(writer: asyncio.StreamWriter) -> Iterator[None]:
    try:
        yield
    finally:
        writer.transport.abort()

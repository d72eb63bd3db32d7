"""Free TCP ports on 127.0.0.1.

Ports are chosen below the range that the kernel uses for outgoing connections (32768 and up on Linux, 49152 and up on
macOS). Within that range, a client that keeps reconnecting to a stopped server on its own machine is sooner or later
given the server's own port, connects to itself, and keeps the server from starting again.
"""

import secrets
import socket

from worker.embedded.errors import EmbeddedError

HOST = "127.0.0.1"
LOWEST, HIGHEST = 20_000, 32_767


def is_free(port: int) -> bool:
    """Whether a server could listen on `port` of 127.0.0.1 now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # The servers set this option too: closing connections of an earlier server do not block the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def pick() -> int:
    """A free port, chosen at random so that two processes rarely choose the same one.

    Raises EmbeddedError if it finds no free port.
    """
    for _ in range(100):
        port = LOWEST + secrets.randbelow(HIGHEST - LOWEST + 1)
        if is_free(port):
            return port
    raise EmbeddedError(f"no free TCP port between {LOWEST} and {HIGHEST} on {HOST}")

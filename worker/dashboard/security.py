"""Who can reach the dashboard: where it may listen, which Host headers it answers, sessions and security headers.

On loopback every user of the machine can open it, and no one else: a foreign name that resolves to 127.0.0.1 (DNS
rebinding) is refused. Anywhere else it needs a token.
"""

import hashlib
import ipaddress
import secrets
from dataclasses import dataclass

from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SESSION_SECONDS = 12 * 60 * 60
KEY_ROUNDS = 600_000
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


class InsecureAccess(Exception):
    """The dashboard would be open to strangers. The text, one line, explains how to fix it."""


@dataclass(frozen=True, slots=True)
class Access:
    """Where the dashboard listens and what it allows.

    Attributes:
        host, port: where it listens.
        token: what users log in with; None: there is no login.
        allow_actions: whether dead letters can be replayed and purged.
    """

    host: str = "127.0.0.1"
    port: int = 8090
    token: str | None = None
    allow_actions: bool = False

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host.strip("[]")).is_loopback
        except ValueError:
            return False

    def check(self) -> None:
        """Refuse to listen beyond loopback without a token.

        Raises:
            InsecureAccess: explaining how to fix it.
        """
        if not self.is_loopback and not self.token:
            raise InsecureAccess(
                f"--host {self.host} lets other machines in, so it needs a token: "
                "export WORKER_DASHBOARD_TOKEN=$(openssl rand -hex 24), or leave --host out and use an SSH tunnel"
            )

    @property
    def allowed_hosts(self) -> list[str]:
        """The names in Host headers that are answered."""
        if not self.is_loopback:
            return ["*"]  # a page on another host name cannot send our cookie, so it sees only the login
        own = self.host.strip("[]")
        return ["localhost", "127.0.0.1", "[::1]", f"[{own}]" if ":" in own else own]

    @property
    def session_cookie(self) -> str:
        """The name of the cookie. It includes the port, because browsers share cookies among the ports of a host."""
        return f"worker_dashboard_{self.port}"

    def session_key(self) -> str:
        """The key that signs sessions, derived from the token.

        Several processes share it, and changing the token invalidates all sessions. The derivation is slow on purpose:
        the login page gives anyone a signed cookie to test guesses of the token on.
        """
        if not self.token:
            return secrets.token_hex(32)
        return hashlib.pbkdf2_hmac("sha256", self.token.encode(), b"worker dashboard session", KEY_ROUNDS).hex()


def middleware(access: Access) -> list[Middleware]:
    """What every request passes through, outermost first."""
    return [
        Middleware(SecurityHeaders),
        Middleware(TrustedHostMiddleware, allowed_hosts=access.allowed_hosts, www_redirect=False),
        Middleware(Sessions, access=access),
    ]


class SecurityHeaders:
    """Adds headers that forbid a browser everything the pages do not need. Starlette has no middleware for it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                headers["cache-control"] = "no-cache" if scope["path"].startswith("/static/") else "no-store"
            await send(message)

        await self._app(scope, receive, send_with_headers)


class Sessions:
    """Starlette's sessions, with a cookie that is `Secure` if the request came by HTTPS."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        key = access.session_key()
        self._by_https = {
            https: SessionMiddleware(app, key, access.session_cookie, SESSION_SECONDS, "/", "strict", https_only=https)
            for https in (False, True)
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, with its session."""
        await self._by_https[scope.get("scheme") == "https"](scope, receive, send)

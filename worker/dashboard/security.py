"""Who may see the page and from where: the start's conditions, the Host header, the headers of every answer.

A page on this machine's loopback is open to all who are on this machine, and to nobody else: a name that somebody lets
point to 127.0.0.1 (DNS rebinding) is refused. Anywhere else one needs the token.
"""

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from worker.dashboard.sessions import Sessions

CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
HEADERS = {
    "content-security-policy": CONTENT_POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
STATIC = "/static/"


class Refused(Exception):
    """The page is not started like this; the text, one line, says what to do instead."""


@dataclass(frozen=True, slots=True)
class Access:
    """Where the page listens and what it allows.

    Attributes:
        host, port: where it listens.
        token: who knows it may see the page; None: everybody on this machine.
        allow_actions: whether dead letters can be replayed and purged.
    """

    host: str = "127.0.0.1"
    port: int = 8090
    token: str | None = None
    allow_actions: bool = False

    @property
    def loopback(self) -> bool:
        """Whether only this machine reaches the page."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host.strip("[]")).is_loopback
        except ValueError:
            return False

    def check(self) -> None:
        """Refuse what would show the page to strangers.

        Raises:
            Refused: naming the way out.
        """
        if not self.loopback and not self.token:
            raise Refused(
                f"--host {self.host} lets other machines in, so it needs a token: "
                "export WORKER_DASHBOARD_TOKEN=$(openssl rand -hex 24), or leave --host out and use an SSH tunnel"
            )

    def knows_host(self, hosts: Iterable[str]) -> bool:
        """Whether a request's Host headers name this page, as far as that can be told."""
        if not self.loopback:
            return True  # under any name; a page of another name is sent no cookie, and without one sees nothing
        names = {"localhost", "127.0.0.1", "[::1]", self.host.lower(), f"[{self.host.lower()}]"}
        given = [_name(host) for host in hosts]
        return len(given) == 1 and given[0] in names


class Guard:
    """What every request passes: the Host is known, it has a session, and every answer has the headers.

    Args:
        app: what is guarded; it finds the session as `request.state.session`.
        access: see there.
        sessions: makes and reads the cookie.
    """

    def __init__(self, app: ASGIApp, access: Access, sessions: Sessions) -> None:
        self._app = app
        self._access = access
        self._sessions = sessions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request pass, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = HTTPConnection(scope)
        static = scope["path"].startswith(STATIC)
        session, fresh = self._sessions.of(request.cookies.get(self._sessions.cookie))

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                headers["cache-control"] = "no-cache" if static else "no-store"
                if fresh and not static and self._sessions.cookie not in headers.get("set-cookie", ""):
                    headers.append("set-cookie", self._sessions.header(session, secure=scope["scheme"] == "https"))
            await send(message)

        if not self._access.knows_host(request.headers.getlist("host")):
            refusal = PlainTextResponse(
                "This page is asked for under a name that is not its own: open it as "
                f"http://127.0.0.1:{self._access.port}/\n",
                status_code=400,
            )
            fresh = False
            await refusal(scope, receive, send_with_headers)
            return
        scope.setdefault("state", {})["session"] = session
        await self._app(scope, receive, send_with_headers)


def _name(host: str) -> str:
    """The name in a Host header, without its port.

    >>> _name("LOCALHOST:8090"), _name("[::1]:8090"), _name("127.0.0.1")
    ('localhost', '[::1]', '127.0.0.1')
    """
    name, bracket, _ = host.partition("]")
    return (name + bracket if bracket else host.partition(":")[0]).lower()

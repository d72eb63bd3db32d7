"""What a session holds: whether the browser has logged in, and its CSRF token. And the limit on failed logins."""

import hashlib
import hmac
import secrets
import time
from collections import OrderedDict, deque
from collections.abc import Callable

from starlette.requests import Request

from worker.dashboard.security import Access

MAX_FAILED_LOGINS = 5
FAILED_LOGIN_SECONDS = 60.0
MAX_ADDRESSES = 1000
"""Failed logins are remembered for this many addresses, the most recent ones."""


def is_logged_in(request: Request, access: Access) -> bool:
    """Whether the browser may see the pages."""
    return not access.token or request.session.get("logged_in") is True


def is_token(access: Access, given: str) -> bool:
    """Whether this is the token, in constant time. Without a token, nothing is."""
    # Digests have the same length, so the time does not depend on the length of the token.
    own, other = (hashlib.sha256(text.encode()).digest() for text in (access.token or "", given))
    return hmac.compare_digest(own, other) and bool(access.token)


def start_session(request: Request) -> None:
    """Log the browser in, in a new session: a CSRF token from before the login ends with the old one."""
    request.session.clear()
    request.session["logged_in"] = True


def csrf_token(request: Request) -> str:
    """What the forms of this session must contain."""
    return str(request.session.setdefault("csrf", secrets.token_urlsafe(32)))


def is_csrf_token(request: Request, given: str) -> bool:
    """Whether a form contains the token of its session, in constant time."""
    own = request.session.get("csrf")
    return isinstance(own, str) and hmac.compare_digest(own.encode(), given.encode())


class FailedLogins:
    """Counts failed logins by address, so that a token cannot be found by trying many.

    In memory, without a library: the page is one process, and five attempts a minute need no more.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._times: OrderedDict[str, deque[float]] = OrderedDict()

    def is_blocked(self, address: str) -> bool:
        """Whether this address must wait."""
        times = self._times.get(address, deque())
        while times and self._clock() - times[0] > FAILED_LOGIN_SECONDS:
            times.popleft()
        return len(times) >= MAX_FAILED_LOGINS

    def add(self, address: str) -> None:
        """Count one."""
        self._times.setdefault(address, deque(maxlen=MAX_FAILED_LOGINS)).append(self._clock())
        self._times.move_to_end(address)
        if len(self._times) > MAX_ADDRESSES:
            self._times.popitem(last=False)

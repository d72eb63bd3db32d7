"""The cookie of a browser, the CSRF token that goes with it, and how often a wrong token may be tried.

A cookie holds a random number, whether its browser has logged in, and when; all under a key that is made anew with each
start of the page. So a cookie says nothing of the token, and ends with the process.
"""

import hashlib
import hmac
import secrets
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass

LASTS_SECONDS = 12 * 60 * 60
WRONG_TRIES = 5
WRONG_SECONDS = 60.0
ADDRESSES = 1000
"""Of how many addresses wrong tries are remembered: the last."""


@dataclass(frozen=True, slots=True)
class Session:
    """What a cookie says."""

    nonce: str
    known: bool
    """Whether the browser may see the pages."""
    since: int
    """When it was made, in seconds of this machine's clock."""


class Sessions:
    """Makes and reads sessions.

    Args:
        token: what one logs in with; None: nobody needs to.
        port: a part of the cookie's name, for browsers keep one jar for all ports of a host.
        clock: the time in seconds.
    """

    def __init__(self, token: str | None, port: int, clock: Callable[[], float] = time.time) -> None:
        self.cookie = f"worker_dashboard_{port}"
        self._token = token
        self._key = secrets.token_bytes(32)
        self._clock = clock

    @property
    def needs_login(self) -> bool:
        """Whether there is a token to be known."""
        return self._token is not None

    def of(self, cookie: str | None) -> tuple[Session, bool]:
        """The session of a cookie, or a fresh one; and whether it is fresh."""
        session = self._read(cookie or "")
        return (self.new(known=not self.needs_login), True) if session is None else (session, False)

    def new(self, *, known: bool) -> Session:
        """A session that no browser has yet."""
        return Session(secrets.token_hex(16), known, int(self._clock()))

    def opens(self, token: str) -> bool:
        """Whether this is the token."""
        # Both hashed, so that not even the length can be told from the time it takes.
        ours, given = (hashlib.sha256(text.encode()).digest() for text in (self._token or "", token))
        return hmac.compare_digest(ours, given) and self.needs_login

    def header(self, session: Session, *, secure: bool) -> str:
        """The `Set-Cookie` header that gives a session to a browser."""
        said = f"{session.nonce}.{int(session.known)}.{session.since}"
        flags = f"; Path=/; Max-Age={LASTS_SECONDS}; HttpOnly; SameSite=Strict" + "; Secure" * secure
        return f"{self.cookie}={said}.{self._sign('session', said)}{flags}"

    def csrf(self, session: Session) -> str:
        """What a form of this session must bring along."""
        return self._sign("csrf", session.nonce)

    def is_csrf(self, session: Session, given: str) -> bool:
        """Whether a form brought it along."""
        return hmac.compare_digest(self.csrf(session).encode(), given.encode())

    def _read(self, cookie: str) -> Session | None:
        said, _, mac = cookie.rpartition(".")
        if not hmac.compare_digest(self._sign("session", said).encode(), mac.encode("utf-8", "replace")):
            return None
        nonce, known, since = said.split(".")
        old = self._clock() - int(since) > LASTS_SECONDS
        return None if old else Session(nonce, known == "1", int(since))

    def _sign(self, purpose: str, text: str) -> str:
        return hmac.new(self._key, f"{purpose}|{text}".encode("utf-8", "replace"), hashlib.sha256).hexdigest()


class WrongTries:
    """Counts wrong tokens by the address they came from, so that nobody can try many."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._tries: OrderedDict[str, deque[float]] = OrderedDict()

    def too_many(self, address: str) -> bool:
        """Whether this address must wait."""
        tries = self._tries.get(address, deque())
        while tries and self._clock() - tries[0] > WRONG_SECONDS:
            tries.popleft()
        return len(tries) >= WRONG_TRIES

    def note(self, address: str) -> None:
        """Count one."""
        self._tries.setdefault(address, deque(maxlen=WRONG_TRIES)).append(self._clock())
        self._tries.move_to_end(address)
        if len(self._tries) > ADDRESSES:
            self._tries.popitem(last=False)

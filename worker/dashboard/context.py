"""What all pages work with: the servers, the settings that matter to them, the session's rules, the templates."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import tzinfo
from typing import Any

from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from starlette.requests import Request

from worker.dashboard.events import Parts
from worker.dashboard.poller import Poller
from worker.dashboard.security import Access
from worker.dashboard.sessions import Sessions, WrongTries
from worker.dashboard.templating import Pages
from worker.model.registry import ScheduledJob
from worker.queue.dead_letters import DeadLetters


@dataclass(frozen=True, slots=True)
class Backend:
    """What the page looks at. Made by who starts it, and closed there."""

    redis: Redis
    engine: AsyncEngine
    queue: str
    zone: tzinfo
    """The time zone of the schedule, and of all times that are shown."""
    schedule: Sequence[ScheduledJob]
    max_payload_bytes: int


@dataclass(frozen=True, slots=True)
class Desk:
    """See above. One for each page that is served, held by the application's state."""

    backend: Backend
    access: Access
    sessions: Sessions
    wrong_tries: WrongTries
    pages: Pages
    poller: Poller[Parts]
    ledger: async_sessionmaker[AsyncSession]

    @property
    def letters(self) -> DeadLetters:
        """The dead letters of the queue."""
        return DeadLetters(self.backend.redis, self.backend.queue)


def desk_of(request: Request) -> Desk:
    """The desk of the application that a request came to."""
    desk: Any = request.app.state.desk
    assert isinstance(desk, Desk)  # noqa: S101  # put there as the application is made
    return desk

"""What all pages share: the servers, the access rules, the templates and the poller."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import tzinfo
from typing import Any

from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from starlette.requests import Request

from worker.dashboard.poller import SharedPoller
from worker.dashboard.security import Access
from worker.dashboard.sessions import FailedLogins
from worker.dashboard.templating import Templates
from worker.database.session import create_sessions
from worker.model.registry import ScheduledJob
from worker.queue.dead_letters import DeadLetters
from worker.runtime import scheduled_jobs
from worker.settings import Settings, zone

Parts = Mapping[str, str]
"""The live parts of the overview: name -> HTML."""


@dataclass(frozen=True, slots=True)
class Backend:
    """The servers and the queue that the pages show. Whoever makes it closes it."""

    redis: Redis
    engine: AsyncEngine
    settings: Settings

    @property
    def queue(self) -> str:
        """The queue's name."""
        return self.settings.queue

    @property
    def zone(self) -> tzinfo:
        """The time zone of the schedule, and of all times on the pages."""
        return zone(self.settings.timezone)

    @property
    def schedule(self) -> Sequence[ScheduledJob]:
        """The scheduled jobs."""
        return scheduled_jobs(self.settings, self.redis)

    @property
    def sessions(self) -> async_sessionmaker[AsyncSession]:
        """Database sessions, for the ledger."""
        return create_sessions(self.engine)

    @property
    def dead_letters(self) -> DeadLetters:
        """The dead letters of the queue."""
        return DeadLetters(self.redis, self.queue)


@dataclass(frozen=True, slots=True)
class DashboardContext:
    """One for each dashboard, held by the application's state."""

    backend: Backend
    access: Access
    failed_logins: FailedLogins
    templates: Templates
    poller: SharedPoller[Parts]


def context_of(request: Request) -> DashboardContext:
    """The context of the dashboard that a request came to."""
    context: Any = request.app.state.context
    assert isinstance(context, DashboardContext)  # noqa: S101  # set when the application is made
    return context

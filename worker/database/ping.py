"""When a pooled connection is pinged before use: when it has been idle, not when it has just been used."""

import time
from typing import Any

from sqlalchemy import Engine, event

RECENT_SECONDS = 0.5


def ping_only_idle(engine: Engine, recent_seconds: float = RECENT_SECONDS) -> None:
    """Let the engine's pre-ping pass over connections that came back to the pool a moment ago.

    SQLAlchemy's ping of asyncpg is three round trips (BEGIN, an empty query, ROLLBACK), as many as a whole job has
    beside it. A connection that answered less than half a second ago is as good as a ping could find it; should it
    have died since, its first statement says so and the job is released, not counted. (The same bound, for the same
    reason, as HikariCP's `aliveBypassWindowMs`.)
    """
    last_used: dict[int, float] = {}
    ping = engine.dialect.do_ping

    def checked_in(connection: Any, _record: Any) -> None:
        if connection is not None:
            last_used[id(connection)] = time.monotonic()

    def closed(connection: Any, _record: Any = None) -> None:
        last_used.pop(id(connection), None)

    def do_ping(connection: Any) -> bool:
        used = last_used.get(id(connection))
        return (used is not None and time.monotonic() - used < recent_seconds) or ping(connection)

    event.listen(engine, "checkin", checked_in)
    for ended in ("close", "close_detached"):
        event.listen(engine, ended, closed)
    engine.dialect.do_ping = do_ping  # type: ignore[method-assign,assignment]  # what the pool asks

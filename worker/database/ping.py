"""When a pooled connection is pinged before use: when it has been idle, not when it has just been used."""

from typing import Any

from sqlalchemy import Engine

from worker.database.uses import Uses

RECENT_SECONDS = 0.5


def ping_only_idle(engine: Engine, uses: Uses, recent_seconds: float = RECENT_SECONDS) -> None:
    """Let the engine's pre-ping pass over connections that were used a moment ago.

    SQLAlchemy's ping of asyncpg is three round trips (BEGIN, an empty query, ROLLBACK), as many as a whole job has
    beside it. A connection that answered less than half a second ago is as good as a ping could find it; should it
    have died since, its first statement says so and the job is released, not counted. (The same bound, for the same
    reason, as HikariCP's `aliveBypassWindowMs`.)
    """
    ping = engine.dialect.do_ping

    def do_ping(connection: Any) -> bool:
        unused_seconds = uses.unused_seconds(connection)
        answers = (unused_seconds is not None and unused_seconds < recent_seconds) or ping(connection)
        uses.note(connection)  # what it was in the pool does not count for the transaction that begins
        return answers

    engine.dialect.do_ping = do_ping  # type: ignore[method-assign,assignment]  # what the pool asks

"""When each connection of an engine was used: what tells an idle one from a broken one, and a warm one from a cold.

The driver's calls are wrapped, not listened to: an engine that anybody listens to asks every connection's listeners at
every step, which is a tenth of a job's function calls.
"""

import time
from typing import Any

from sqlalchemy import Engine, event


class Uses:
    """Notes when an engine's connections are used, from now on."""

    def __init__(self, engine: Engine) -> None:
        self._used: dict[int, float] = {}
        self._idle: dict[int, float] = {}
        """How long it had not been used as its last statement began."""
        dialect = engine.dialect
        for name in ("do_execute", "do_executemany"):
            setattr(dialect, name, self._timed(getattr(dialect, name)))
        for ended in ("close", "close_detached"):
            event.listen(engine, ended, self._forget)

    def note(self, connection: Any) -> None:
        """The driver's connection is used now."""
        self._used[id(connection)] = time.monotonic()

    def unused_seconds(self, connection: Any) -> float | None:
        """For how long it has not been used; None when it never was."""
        used = self._used.get(id(connection))
        return None if used is None else time.monotonic() - used

    def idle_seconds(self, connection: Any) -> float:
        """For how long it had not been used as its last statement began."""
        return self._idle.get(id(connection), 0.0)

    def _timed(self, execute: Any) -> Any:
        def timed(cursor: Any, statement: Any, parameters: Any, context: Any = None) -> None:
            key = id(cursor._adapt_connection)  # noqa: SLF001  # checked at the start
            now = time.monotonic()
            self._idle[key] = now - self._used.get(key, now)
            execute(cursor, statement, parameters, context)
            self._used[key] = time.monotonic()

        return timed

    def _forget(self, connection: Any, _record: Any = None) -> None:
        # Another may come to have its number.
        self._used.pop(id(connection), None)
        self._idle.pop(id(connection), None)

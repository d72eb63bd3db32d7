"""What a connection that broke under a transaction means: whose fault it was, told by an error with an SQLSTATE."""

from typing import Any

import asyncpg  # type: ignore[import-untyped]
from sqlalchemy import Engine, event
from sqlalchemy.engine import ExceptionContext

from worker.database.uses import Uses

# The server begins to count before the client does, by as long as its answer is on the way.
_MARGIN = 0.9


class ConnectionLost(Exception):
    """The connection failed, or the server did not answer in time: nothing is known of what was sent last."""

    sqlstate = "08006"


class Unreachable(Exception):
    """No connection could be made. The cause says why."""

    sqlstate = "08001"


class LeftIdle(Exception):
    """The server ended a transaction that sent nothing for longer than it may: no fault of the server's."""

    sqlstate = "25P03"


async def connect(*args: Any, **options: Any) -> Any:
    """asyncpg's `connect`, which by itself only says that something is wrong with a socket, whosever it is.

    Raises:
        Unreachable: when there is no way to the server.
    """
    try:
        return await asyncpg.connect(*args, **options)
    except OSError as error:  # time-outs are such, too
        raise Unreachable from error


def tell_broken(engine: Engine, uses: Uses, idle_seconds: float) -> None:
    """Let the engine raise `ConnectionLost` and `LeftIdle` where the driver only says that something is closed.

    asyncpg drops what the server says as it ends an idle transaction, and its time-outs and socket errors come through
    SQLAlchemy as they are, the connection still taken for whole.
    """

    def tell(context: ExceptionContext) -> BaseException | None:
        failed = isinstance(context.original_exception, OSError)  # time-outs are such, too
        if context.connection is None or not (failed or context.is_disconnect):
            return None
        if not isinstance(context.original_exception, Exception):
            return None  # cancelled: SQLAlchemy gives the connection up for that alone
        context.is_disconnect = True
        if failed:
            return ConnectionLost()
        if not context.connection.invalidated:
            connection = context.connection.connection.dbapi_connection
            # A statement's own time is none that was spent idle; BEGIN and COMMIT have none to speak of.
            idle = uses.unused_seconds(connection) if context.statement is None else uses.idle_seconds(connection)
            return LeftIdle() if idle is not None and idle > idle_seconds * _MARGIN else None
        return None

    event.listen(engine, "handle_error", tell)

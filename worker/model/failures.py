"""What an exception means for the job that met it: one table, and how the exception is told in few words.

Nothing here repeats an exception's own text: the texts of databases and of handlers hold values.
"""

from collections.abc import Iterator

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from worker.model.causes import causes, place
from worker.model.outcome import Rejected, Release, Retry
from worker.model.registry import Rejection

# SQLSTATEs, or their classes (the first two characters), as PostgreSQL's documentation lists them in appendix A.
# What a request cannot have: an answer.
_REJECTED = frozenset({"23505", "23503", "23502", "23514", "23P01", "22"})
# What is wrong with the server or the way to it, not with the job: given back, not counted.
_RELEASED = {
    "08001": "the database cannot be reached",
    "08": "the connection to the database failed",
    "57P01": "the database is shutting down",
    "57P02": "the database crashed",
    "57P03": "the database is starting up",
    "57P05": "the database ended an idle session",
    "53100": "the database's disk is full",
    "53300": "the database has no connection left",
    "58": "the database has trouble with its machine",
    "25006": "the database is read-only",
    "28": "the database refused the log-in",
    "3D000": "the database does not exist",
}
# All else is retried and counted: deadlocks (40P01), serialization failures (40001), locks not had in time (55P03),
# statements ended for their length (57014), transactions left idle (25P03), statements that are wrong (42); and what
# one job alone may cause, so that it must not come back for ever: no memory (53200), a row that cannot be read (XX).


def classify(error: Exception) -> Rejected | Retry | Release:
    """Say what an exception from within a job's transaction means for the job."""
    if isinstance(error, Rejection):
        return Rejected(error.code, error.detail)
    if isinstance(error, PoolTimeoutError):
        return Release("no connection of the pool became free in time")
    if (sqlstate := _sqlstate(error)) is not None:
        if _listed(sqlstate, _REJECTED):
            return _rejected(sqlstate, error)
        if key := _listed(sqlstate, _RELEASED):
            return Release(f"{_RELEASED[key]} (SQLSTATE {sqlstate})")
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return Release("the connection to the database was lost")
    if isinstance(error, TimeoutError):
        return Retry("timeout", describe(error), causes(error))
    return Retry("failed", describe(error), causes(error))


def waited(error: BaseException) -> bool:
    """Whether the exception is that of a wait for somebody else's transaction: no sign that anything is wrong."""
    return _sqlstate(error) in {"55P03", "57014"}


def forbidden(error: BaseException) -> bool:
    """Whether the exception says that the role lacks a privilege."""
    return _sqlstate(error) == "42501"


def describe(error: BaseException) -> str:
    """Tell an exception by the types of its chain and the place where it was raised, without its texts.

    That is what ledgers, results and dead letters hold. Logs hold more of it: see `worker.model.causes`.

    >>> try:
    ...     {}["secret"]
    ... except KeyError as error:
    ...     describe(error).partition(" at ")[0]
    'KeyError'
    """
    names = []
    for link in _chain(error):
        sqlstate = getattr(link, "sqlstate", None)
        names.append(type(link).__name__ + (f"[{sqlstate}]" if isinstance(sqlstate, str) else ""))
    at = place(error.__traceback__).rpartition("/")[2]
    return " from ".join(names) + (f" at {at}" if at else "")


def _listed(sqlstate: str, table: "frozenset[str] | dict[str, str]") -> str | None:
    return next((key for key in (sqlstate, sqlstate[:2]) if key in table), None)


def _rejected(sqlstate: str, error: Exception) -> Rejected:
    column = _column(error)
    match sqlstate:
        case "23505" | "23P01":
            return Rejected("conflict", f"{column or 'a unique value'} is already taken")
        case "23503":
            return Rejected("not_found", f"{column or 'a reference'} names nothing that exists")
        case _:
            return Rejected("invalid", f"{column or 'a value'} is not one that the database takes")


def _column(error: BaseException) -> str | None:
    """The column that a violated constraint is named after (the naming convention of the tables), if any."""
    for link in _chain(error):
        constraint, table = getattr(link, "constraint_name", None), getattr(link, "table_name", None)
        if isinstance(constraint, str) and isinstance(table, str):
            _, found, column = constraint.partition(f"_{table}_")
            return column if found else None
    return None


def _sqlstate(error: BaseException) -> str | None:
    states = (getattr(link, "sqlstate", None) for link in _chain(error))
    return next((state for state in states if isinstance(state, str)), None)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The exception and what caused it; SQLAlchemy's wrapper has asyncpg's own as its `orig`."""
    seen: set[int] = set()
    link: object = error
    while isinstance(link, BaseException) and id(link) not in seen and len(seen) < 10:  # noqa: PLR2004  # a bound, not a number
        seen.add(id(link))
        yield link
        orig = getattr(link, "orig", None)
        link = orig if isinstance(orig, BaseException) else link.__cause__

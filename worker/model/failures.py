"""What an exception means for the job whose attempt raised it, and how it is described without its text.

Texts of databases and of handlers hold values, so nothing here repeats them. An exception is described by its type, its
SQLSTATE if it has one, and the place that raised it.

`Transaction` decides two cases with more knowledge: a timeout while the database does not answer is a release, and a
failure of the last attempt is dead. A scheduled job is never retried: its failure is dead at once.
"""

import sys
import sysconfig
from collections.abc import Container, Iterator, Sequence
from functools import lru_cache
from itertools import islice
from pathlib import PurePath
from traceback import walk_tb
from types import TracebackType

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from producers.errors import DeadCode
from worker.model.outcome import Link, Rejected, Release, Retry
from worker.model.registry import Rejection

# SQLSTATEs, or their classes (the first two characters), as in appendix A of PostgreSQL's documentation.
# The request cannot be honoured.
_REJECTED = frozenset({"23505", "23503", "23502", "23514", "23P01", "22"})
# The server or the way to it is at fault, not the job: released, not counted.
_RELEASED = {
    "08001": "the database cannot be reached",
    "08": "the connection to the database failed",
    "57P01": "the database is shutting down",
    "57P02": "the database crashed",
    "57P03": "the database is starting up",
    "57P05": "the database ended an idle session",
    "53100": "the database's disk is full",
    "53300": "the database has no connection left",
    "58": "the database's machine has an I/O error",
    "25006": "the database is read-only",
    "28": "the database refused the log-in",
    "3D000": "the database does not exist",
}
# Everything else is retried and counted: deadlocks (40P01), serialization failures (40001), lock timeouts (55P03),
# statement timeouts (57014), idle transactions (25P03), wrong statements (42); and what a single job can cause, so that
# it must not come back for ever: out of memory (53200), an unreadable row (XX).

MAX_LINKS = 10
"""Of all chains of one exception together, those of a group's members included."""
MORE: Link = {"type": "(more)"}
"""Stands for the links that are left out."""

_OURS = ("worker/", "producers/")
# Every statement passes through these, so a place in them hides which statement failed.
_PASSED_THROUGH = ("worker/database/connections.py", "worker/database/sql.py")
_LIBRARIES = tuple({sysconfig.get_path(name) + "/" for name in ("stdlib", "platstdlib", "purelib", "platlib")})


def classify(error: BaseException) -> Rejected | Retry | Release:
    """What an exception from within a job's transaction means for the job.

    An outage counts wherever it is in the chain, for a handler may have answered it with an exception of its own. A
    violation counts only as the exception or its explicit cause: what else is raised while one is handled is a fault.
    """
    if isinstance(error, Rejection):
        return Rejected(error.code, error.detail)
    links = list(_walk(error))
    if any(isinstance(link, PoolTimeoutError) for link in links):
        return Release("no connection of the pool became free in time")
    for outage in filter(None, map(_sqlstate, links)):
        if key := _find(outage, _RELEASED):
            return Release(f"{_RELEASED[key]} (SQLSTATE {outage})")
    if any(isinstance(link, DBAPIError) and link.connection_invalidated for link in links):
        return Release("the connection to the database was lost")
    explicit = list(_chain(error, contexts=False))
    state = next(filter(None, map(_sqlstate, explicit)), None)
    if state is not None and _find(state, _REJECTED):
        return _rejected(state, explicit)
    code: DeadCode = "timeout" if isinstance(error, TimeoutError) else "failed"
    return Retry(code, describe(error), causes(error))


def is_lock_timeout(error: BaseException) -> bool:
    """Whether the exception ended a wait for another transaction: no sign that anything is wrong."""
    return _first_sqlstate(error) in {"55P03", "57014"}


def lacks_privilege(error: BaseException) -> bool:
    """Whether the database role lacks a privilege."""
    return _first_sqlstate(error) == "42501"


def describe(error: BaseException) -> str:
    """The types of an exception's chain and the place that raised it: what ledgers, results and dead letters hold.

    Logs hold more of it: see `causes`.

    >>> try:
    ...     {}["secret"]
    ... except KeyError as error:
    ...     describe(error).partition(" at ")[0]
    'KeyError'
    """
    names = []
    for link in islice(_chain(error), MAX_LINKS):
        state = _sqlstate(link)
        names.append(type(link).__name__ + (f"[{state}]" if state else ""))
    at = place(error.__traceback__).rpartition("/")[2]
    return " from ".join(names) + (f" at {at}" if at else "")


def causes(error: BaseException) -> list[Link]:
    """An exception's chain for the log, outermost first, a group's members each with a chain of their own.

    A library's place is given for the outermost exception only. At most `MAX_LINKS` links in all.

    >>> try:
    ...     {}["secret"]
    ... except KeyError as error:
    ...     [link["type"] for link in causes(ExceptionGroup("secret", [error, OSError(error)]))[0]["errors"][0]]
    ['KeyError']
    """
    return _links(error, set())


def place(traceback: TracebackType | None, *, of_libraries: bool = True) -> str:
    """Where an exception was raised, as in `worker/database/users.py:41 in create_user`; empty when not known.

    The innermost place in this project's code or a handler's. A place in a library means little without the text, so
    it is given only when there is no other, and only if `of_libraries`.
    """
    # No source line is read from a file: that would block the event loop.
    found, found_is_ours = "", False
    for frame, number in walk_tb(traceback):
        file, ours = _file(frame.f_code.co_filename)
        if ours or not found_is_ours:
            found, found_is_ours = f"{file}:{number} in {frame.f_code.co_qualname.rpartition('<locals>.')[2]}", ours
    return found if found_is_ours or of_libraries else ""


def _chain(error: BaseException, *, contexts: bool = True) -> Iterator[BaseException]:
    """An exception and those it came from, as Python itself reports them; SQLAlchemy's `orig` is the driver's own.

    Without `contexts`, an exception that was being handled when the next was raised is not followed.
    """
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        orig = getattr(link, "orig", None)
        if isinstance(orig, BaseException):
            link = orig
        elif link.__cause__ is not None:
            link = link.__cause__
        else:
            link = link.__context__ if contexts and not link.__suppress_context__ else None


def _walk(error: BaseException) -> Iterator[BaseException]:
    """All exceptions of a chain, the members of groups and their chains included."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        for link in _chain(waiting.pop(0)):
            if id(link) in seen:
                break
            seen.add(id(link))
            yield link
            if isinstance(link, BaseExceptionGroup):
                waiting.extend(link.exceptions)


def _links(error: BaseException, seen: set[int]) -> list[Link]:
    links: list[Link] = []
    for link in _chain(error):
        if id(link) in seen:
            break
        if len(seen) == MAX_LINKS:
            return [*links, MORE]
        seen.add(id(link))
        links.append(_link(link, outermost=not links))
        if isinstance(link, BaseExceptionGroup):
            links[-1]["errors"] = _members(link.exceptions, seen)
    return links


def _members(errors: Sequence[BaseException], seen: set[int]) -> list[list[Link]]:
    chains: list[list[Link]] = []
    for error in errors:
        if len(seen) == MAX_LINKS:
            return [*chains, [MORE]]
        chains.append(_links(error, seen))
    return [chain for chain in chains if chain]


def _link(error: BaseException, *, outermost: bool) -> Link:
    kind, state = type(error), _sqlstate(error)
    link: Link = {
        "type": kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    }
    if state is not None:
        link["sqlstate"] = state
    if at := place(error.__traceback__, of_libraries=outermost):
        link["at"] = at
    return link


def _rejected(state: str, links: Sequence[BaseException]) -> Rejected:
    column = _column(links)
    match state:
        case "23505" | "23P01":
            return Rejected("conflict", f"{column or 'a unique value'} is already taken")
        case "23503":
            return Rejected("not_found", f"{column or 'a reference'} names nothing that exists")
        case _:
            return Rejected("invalid", f"{column or 'a value'} is not one that the database takes")


def _column(links: Sequence[BaseException]) -> str | None:
    """The column that a violated constraint is named after (the tables' naming convention), if any."""
    for link in links:
        constraint, table = getattr(link, "constraint_name", None), getattr(link, "table_name", None)
        if isinstance(constraint, str) and isinstance(table, str):
            _, found, column = constraint.partition(f"_{table}_")
            return column if found else None
    return None


def _sqlstate(error: BaseException) -> str | None:
    state = getattr(error, "sqlstate", None)
    return state if isinstance(state, str) else None


def _first_sqlstate(error: BaseException) -> str | None:
    return next((state for link in _walk(error) if (state := _sqlstate(link)) is not None), None)


def _find(state: str, table: Container[str]) -> str | None:
    return next((key for key in (state, state[:2]) if key in table), None)


@lru_cache(maxsize=1024)
def _file(name: str) -> tuple[str, bool]:
    """A file's path below the folder that it was imported from, and whether it is not a library's.

    >>> _file("asyncpg/protocol/protocol.pyx")
    ('asyncpg/protocol/protocol.pyx', False)
    """
    if not name.startswith("/"):  # compiled, frozen, or never a file
        return name, False
    folders = [folder.rstrip("/") + "/" for folder in sys.path if folder]
    folder = max((folder for folder in folders if name.startswith(folder)), key=len, default="")
    path = name.removeprefix(folder) if folder else "/".join(PurePath(name).parts[-2:])
    ours = path.startswith(_OURS) or not name.startswith(_LIBRARIES)
    return path, ours and path not in _PASSED_THROUGH

"""An exception as a line of the log holds it: a link for each exception of its chain, the outermost first.

A link has the exception's type, its SQLSTATE if it has one, and the place it came from (a library's place for the
outermost alone). It has no text: texts of databases and of handlers hold values.
"""

import sys
import sysconfig
from collections.abc import Sequence
from functools import lru_cache
from pathlib import PurePath
from traceback import walk_tb
from types import TracebackType
from typing import Any

Link = dict[str, Any]

MOST_LINKS = 10
"""Of all chains together, those of a group's members included."""
MORE: Link = {"type": "(more)"}
"""Stands for what is left out."""

_OURS = ("worker/", "producers/")
_LIBRARIES = tuple({sysconfig.get_path(name) + "/" for name in ("stdlib", "platstdlib", "purelib", "platlib")})


def causes(error: BaseException) -> list[Link]:
    """Tell an exception's chain, a group's members each with a chain of their own; at most `MOST_LINKS` links in all.

    >>> try:
    ...     {}["secret"]
    ... except KeyError as error:
    ...     [link["type"] for link in causes(ExceptionGroup("secret", [error, OSError(error)]))[0]["errors"][0]]
    ['KeyError']
    """
    return _links(error, set())


def _links(error: BaseException, seen: set[int]) -> list[Link]:
    links: list[Link] = []
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        if len(seen) == MOST_LINKS:
            return [*links, MORE]
        seen.add(id(link))
        links.append(_link(link, outermost=not links))
        if isinstance(link, BaseExceptionGroup):
            links[-1]["errors"] = _members(link.exceptions, seen)
        link = _cause(link)
    return links


def _members(errors: Sequence[BaseException], seen: set[int]) -> list[list[Link]]:
    chains: list[list[Link]] = []
    for error in errors:
        if len(seen) == MOST_LINKS:
            return [*chains, [MORE]]
        chains.append(_links(error, seen))
    return [chain for chain in chains if chain]


def _link(error: BaseException, *, outermost: bool) -> Link:
    kind, sqlstate = type(error), getattr(error, "sqlstate", None)
    link: Link = {
        "type": kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    }
    if isinstance(sqlstate, str):
        link["sqlstate"] = sqlstate
    if at := place(error.__traceback__, of_libraries=outermost):
        link["at"] = at
    return link


def _cause(error: BaseException) -> BaseException | None:
    """What an exception came of, as Python itself tells it; SQLAlchemy's wrapper has asyncpg's own as its `orig`."""
    orig = getattr(error, "orig", None)
    if isinstance(orig, BaseException):
        return orig
    if error.__cause__ is not None:
        return error.__cause__
    return None if error.__suppress_context__ else error.__context__


def place(traceback: TracebackType | None, *, of_libraries: bool = True) -> str:
    """Where an exception came from, as in `worker/database/users.py:41 in create_user`; empty when that is not known.

    It is the innermost place in code of ours or of a handler's: a library's inside says little without its text, and is
    told only when there is nothing else, and if asked for.
    """
    # No line of code is read from a file for it: that would hold up all that runs here.
    found, found_is_ours = "", False
    for frame, number in walk_tb(traceback):
        file, ours = _file(frame.f_code.co_filename)
        if ours or not found_is_ours:
            found, found_is_ours = f"{file}:{number} in {frame.f_code.co_qualname.rpartition('<locals>.')[2]}", ours
    return found if found_is_ours or of_libraries else ""


@lru_cache(maxsize=1024)
def _file(name: str) -> tuple[str, bool]:
    """A file's path below the folder that it was imported from, and whether it is no library's.

    >>> _file("asyncpg/protocol/protocol.pyx")
    ('asyncpg/protocol/protocol.pyx', False)
    """
    if not name.startswith("/"):  # compiled, frozen, or never a file
        return name, False
    folders = [folder.rstrip("/") + "/" for folder in sys.path if folder]
    folder = max((folder for folder in folders if name.startswith(folder)), key=len, default="")
    path = name.removeprefix(folder) if folder else "/".join(PurePath(name).parts[-2:])
    return path, path.startswith(_OURS) or not name.startswith(_LIBRARIES)

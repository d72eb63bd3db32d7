"""The same handlers for systems without asyncio: a Session a job, on psycopg."""

from collections.abc import Callable
from functools import cache
from typing import Any

from sqlalchemy import create_engine
from sqlalchemy.orm import Session, sessionmaker

from benchmarks.peers import best
from benchmarks.peers.common import KINDS, counter
from benchmarks.peers.handlers import handlers
from benchmarks.peers.tables import Base, Post, User, database_url

Task = Callable[..., None]


@cache
def sessions() -> sessionmaker[Session]:
    """Made when the first job comes: connections must not be shared by forked processes."""
    engine = create_engine(database_url("psycopg"), pool_pre_ping=handlers() == "usual", pool_size=1, max_overflow=0)
    return sessionmaker(engine, expire_on_commit=False)


def tasks() -> dict[str, Task]:
    """The tasks of all scenarios, by name. They take the fields of their jobs."""
    return {"noop": noop} | {kind: _task(kind) for kind in KINDS}


def noop(number: int) -> None:  # noqa: ARG001  # sent along, as any real job has something
    """Only count."""
    counter()()


def _task(kind: str) -> Task:
    verb, model = kind.split("_")

    def task(**fields: Any) -> None:
        with sessions()() as session:
            try:
                if handlers() == "usual":
                    _usual(session, verb, User if model == "user" else Post, fields)
                else:
                    session.execute(*best.statement(kind, fields))
                session.commit()
            except Exception:
                session.rollback()
                raise

    return task


def _usual(session: Session, verb: str, model: type[Base], fields: dict[str, Any]) -> None:
    if verb == "create":
        row: Base | None = model(**fields)
        session.add(row)
    else:
        row = session.get(model, fields["user_id" if model is User else "post_id"])
    if row is None:
        return
    if verb == "delete":
        session.delete(row)
        session.flush()
        return
    for name, value in fields.get("changes", {}).items():
        setattr(row, name, value)
    session.flush()
    session.refresh(row)

"""The spans of SQL: one a statement, below the span of the job that sends it.

SQLAlchemy's instrumentation of OpenTelemetry takes no SQLAlchemy as new as ours, and tells statements with what is
written out in them.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer
from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine.interfaces import ExceptionContext, ExecutionContext

LONGEST_TEXT = 2000
"""Of a statement as spans tell it, in characters."""

# Values are bound. Should somebody write one out all the same, it is not told: strings, and numbers that are no `$1`.
_LITERAL = re.compile(r"'(?:[^']|'')*'|\$(\w*)\$.*?\$\1\$|(?<![\w$.])\d+(?:\.\d+)?\b", re.DOTALL)
_INNERMOST = re.compile(r"\([^()]*\)")
_ABOUT = re.compile(
    r"\b(INSERT)\s+INTO\s+(?!AS\b)([\w.\"]+)|\b(DELETE)\s+FROM\s+([\w.\"]+)|\b(UPDATE)\s+(?!SET\b)([\w.\"]+)"
    r"|\b(SELECT)\b.*?\bFROM\s+(?!AS\b)([\w.\"]+)",
    re.DOTALL | re.IGNORECASE,
)


class StatementSpans:
    """Opens spans for what an engine sends while there is a span of a job; outside of one it does nothing.

    Args:
        tracer: makes them.
        engine: whose statements have spans from now on.
    """

    def __init__(self, tracer: Tracer, engine: Engine) -> None:
        self._tracer = tracer
        url = engine.url
        self._always = {
            name: value
            for name, value in {
                "db.system.name": "postgresql",
                "db.namespace": url.database,
                "server.address": url.host,
                "server.port": url.port,
            }.items()
            if value is not None
        }
        self._open: WeakKeyDictionary[ExecutionContext, Span] = WeakKeyDictionary()
        # Not around the driver's call: an exception would then be told to come from here.
        event.listen(engine, "before_cursor_execute", self._before)
        event.listen(engine, "after_cursor_execute", self._after)
        event.listen(engine, "handle_error", self._failed)

    @contextmanager
    def of(self, statement: str) -> Iterator[None]:
        """The span of what is no statement for a cursor: COMMIT."""
        if (span := self._begin(statement)) is None:
            yield
            return
        try:
            yield
        except BaseException as error:
            _tell(span, error)
            raise
        finally:
            span.end()

    def _begin(self, statement: str) -> Span | None:
        if not trace.get_current_span().is_recording():
            return None
        name, attributes = _told(statement)
        return self._tracer.start_span(name, kind=SpanKind.CLIENT, attributes={**self._always, **attributes})

    def _before(
        self,
        _connection: Connection,
        _cursor: Any,
        statement: str,
        _values: Any,
        context: ExecutionContext,
        _many: bool,
    ) -> None:
        if (span := self._begin(statement)) is not None:
            self._open[context] = span

    def _after(
        self, _connection: Connection, _cursor: Any, _text: str, _values: Any, context: ExecutionContext, _many: bool
    ) -> None:
        if (span := self._open.pop(context, None)) is not None:
            span.end()

    def _failed(self, failure: ExceptionContext) -> None:
        # Cancellations come here, too.
        context = failure.execution_context
        if context is not None and (span := self._open.pop(context, None)) is not None:
            _tell(span, failure.original_exception)
            span.end()


def _tell(span: Span, error: BaseException) -> None:
    """What an error was, without its text, for that may hold values."""
    span.set_attribute("error.type", type(error).__name__)
    if isinstance(sqlstate := getattr(error, "sqlstate", None), str):
        span.set_attribute("db.response.status_code", sqlstate)
    span.set_status(Status(StatusCode.ERROR, type(error).__name__))


@lru_cache(maxsize=512)
def _told(statement: str) -> tuple[str, Mapping[str, str]]:
    """The name of a statement's span, and what else is told of it.

    >>> _told("WITH old AS (SELECT id FROM users WHERE email = 'ada' LIMIT 5) DELETE FROM users USING old")
    ... # doctest: +NORMALIZE_WHITESPACE
    ('DELETE users', {'db.operation.name': 'DELETE', 'db.collection.name': 'users',
    'db.query.text': 'WITH old AS (SELECT id FROM users WHERE email = ? LIMIT ?) DELETE FROM users USING old'})
    >>> _told("COMMIT")[0], _told("SELECT 1")[0], _told("INSERT INTO posts (title) VALUES ($1) RETURNING id")[0]
    ('COMMIT', 'SELECT', 'INSERT posts')
    """
    text = _LITERAL.sub("?", statement.strip())
    flat, changed = text, 1
    while changed:  # what is in parentheses is not what the statement is about
        flat, changed = _INNERMOST.subn("", flat)
    if (about := _ABOUT.search(flat)) is not None:
        operation, table = (group for group in about.groups() if group)
        told = {"db.operation.name": operation.upper(), "db.collection.name": table.strip('"')}
    else:
        told = {"db.operation.name": (flat.split(maxsplit=1) or ["?"])[0].upper()}
    # Few of them: each costs its span some microseconds.
    name = " ".join(told.values())
    return name, {**told, "db.query.text": text[:LONGEST_TEXT]}

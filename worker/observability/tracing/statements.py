"""Spans of SQL statements, below the span of the job that sends them.

OpenTelemetry's own instrumentation of SQLAlchemy does not support SQLAlchemy 2.1, and it records the literals in
statements.
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

MAX_TEXT = 2000
"""Characters of a statement in its span."""

# Values are bound parameters. Literals are replaced in case a handler writes one: strings, and numbers except `$1`.
_LITERAL = re.compile(r"'(?:[^']|'')*'|\$(\w*)\$.*?\$\1\$|(?<![\w$.])\d+(?:\.\d+)?\b", re.DOTALL)
_INNERMOST = re.compile(r"\([^()]*\)")
_OPERATION = re.compile(
    r"\b(INSERT)\s+INTO\s+(?!AS\b)([\w.\"]+)|\b(DELETE)\s+FROM\s+([\w.\"]+)|\b(UPDATE)\s+(?!SET\b)([\w.\"]+)"
    r"|\b(SELECT)\b.*?\bFROM\s+(?!AS\b)([\w.\"]+)",
    re.DOTALL | re.IGNORECASE,
)


class StatementSpans:
    """Opens a span for each statement that an engine sends within a recorded span, and none outside of one.

    Args:
        tracer: creates the spans.
        engine: its statements have spans from now on.
    """

    def __init__(self, tracer: Tracer, engine: Engine) -> None:
        self._tracer = tracer
        url = engine.url
        self._attributes = {
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
        # Events instead of a wrapper around the driver's call, which would become the place that exceptions come from.
        event.listen(engine, "before_cursor_execute", self._before)
        event.listen(engine, "after_cursor_execute", self._after)
        event.listen(engine, "handle_error", self._failed)

    @contextmanager
    def of(self, statement: str) -> Iterator[None]:
        """Open a span for a command that has no cursor: COMMIT."""
        if (span := self._begin(statement)) is None:
            yield
            return
        try:
            yield
        except BaseException as error:
            _record_error(span, error)
            raise
        finally:
            span.end()

    def _begin(self, statement: str) -> Span | None:
        if not trace.get_current_span().is_recording():
            return None
        name, attributes = _describe(statement)
        return self._tracer.start_span(name, kind=SpanKind.CLIENT, attributes={**self._attributes, **attributes})

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
        # Cancellations arrive here as well.
        context = failure.execution_context
        if context is not None and (span := self._open.pop(context, None)) is not None:
            _record_error(span, failure.original_exception)
            span.end()


def _record_error(span: Span, error: BaseException) -> None:
    """Record the type of an error, without its text, which may hold values."""
    span.set_attribute("error.type", type(error).__name__)
    if isinstance(sqlstate := getattr(error, "sqlstate", None), str):
        span.set_attribute("db.response.status_code", sqlstate)
    span.set_status(Status(StatusCode.ERROR, type(error).__name__))


@lru_cache(maxsize=512)
def _describe(statement: str) -> tuple[str, Mapping[str, str]]:
    """The name and the attributes of a statement's span.

    >>> _describe("WITH old AS (SELECT id FROM users WHERE email = 'ada' LIMIT 5) DELETE FROM users USING old")
    ... # doctest: +NORMALIZE_WHITESPACE
    ('DELETE users', {'db.operation.name': 'DELETE', 'db.collection.name': 'users',
    'db.query.text': 'WITH old AS (SELECT id FROM users WHERE email = ? LIMIT ?) DELETE FROM users USING old'})
    >>> [_describe(sql)[0] for sql in ("COMMIT", "SELECT 1", "INSERT INTO posts (title) VALUES ($1) RETURNING id")]
    ['COMMIT', 'SELECT', 'INSERT posts']
    """
    text = _LITERAL.sub("?", statement.strip())
    flat, changed = text, 1
    while changed:  # subqueries and lists in parentheses do not name the operation
        flat, changed = _INNERMOST.subn("", flat)
    if (match := _OPERATION.search(flat)) is not None:
        operation, table = (group for group in match.groups() if group)
        attributes = {"db.operation.name": operation.upper(), "db.collection.name": table.strip('"')}
    else:
        attributes = {"db.operation.name": (flat.split(maxsplit=1) or ["?"])[0].upper()}
    # Only a few attributes: each costs a span microseconds.
    name = " ".join(attributes.values())
    return name, {**attributes, "db.query.text": text[:MAX_TEXT]}

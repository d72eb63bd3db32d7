"""docs/events.md lists every event that the code logs, with its levels and fields, and no other.

`python tests/unit/test_events.py` prints the events of the code.
"""

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LEVELS = ("debug", "info", "warning", "error")
LOGGERS = {"log", "self._log"}
ROW = re.compile(r"^\| `(\w+)` \| ([^|]+) \| ([^|]*) \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)


@dataclass
class Event:
    """The levels and fields of one event."""

    levels: set[str] = field(default_factory=set)
    fields: set[str] = field(default_factory=set)
    places: set[str] = field(default_factory=set)
    """The functions that log it."""


def logged(source: str, file: str = "") -> Iterator[tuple[str, str, set[str], str]]:
    """Each event that a source logs: its name, level, fields and function."""
    functions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
    tree = ast.parse(source)
    inside: dict[ast.AST, ast.AST] = {}
    for node in ast.walk(tree):  # from the outermost to the innermost
        for child in ast.iter_child_nodes(node):
            inside[child] = node if isinstance(node, functions) else inside.get(node, tree)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        if ast.unparse(node.func.value) not in LOGGERS or node.func.attr in {"bind", "new"}:
            continue
        where = f"{file}:{node.lineno}"
        name = node.args[0] if node.args else None
        assert node.func.attr in LEVELS, f"{where}: {node.func.attr} is not an allowed level"
        assert isinstance(name, ast.Constant), f"{where}: the event is not a literal"
        assert len(node.args) == 1, f"{where}: fields need names"
        function = inside[node]
        while isinstance(function, ast.Lambda):
            function = inside[function]
        fields: set[str] = set()
        for keyword in node.keywords:
            fields |= names(keyword.value, function, where) if keyword.arg is None else {keyword.arg}
        yield str(name.value), node.func.attr, fields, f"{file} {getattr(function, 'name', '')}"


def names(value: ast.expr, function: ast.AST, where: str) -> set[str]:
    """The keys of `**value`: a dictionary literal, or one that the same function builds."""
    match value:
        case ast.Dict():
            assert all(isinstance(key, ast.Constant) for key in value.keys), where
            return {str(key.value) for key in value.keys if isinstance(key, ast.Constant)}
        case ast.IfExp():
            return names(value.body, function, where) | names(value.orelse, function, where)
        case ast.Name():
            found: set[str] = set()
            for target, given in assigned(function):
                if ast.unparse(target) == value.id:
                    found |= names(given, function, where)
                if isinstance(target, ast.Subscript) and ast.unparse(target.value) == value.id:
                    assert isinstance(target.slice, ast.Constant), where
                    found.add(str(target.slice.value))
            assert found, f"{where}: the fields of {value.id} are not literals"
            return found
        case _:
            raise AssertionError(f"{where}: the fields are not literals")


def assigned(function: ast.AST) -> Iterator[tuple[ast.expr, ast.expr]]:
    """The assignments of a function: targets and values."""
    for node in ast.walk(function):
        if isinstance(node, ast.Assign):
            yield from ((target, node.value) for target in node.targets)
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            yield node.target, node.value


def in_code() -> dict[str, Event]:
    """Every event of the code."""
    events: dict[str, Event] = {}
    for path in sorted([*ROOT.glob("worker/**/*.py"), *ROOT.glob("producers/**/*.py")]):
        source = path.read_text()
        for name, level, fields, place in (
            logged(source, path.relative_to(ROOT).as_posix()) if "structlog" in source else ()
        ):
            event = events.setdefault(name, Event())
            event.levels.add(level)
            event.fields |= fields
            event.places.add(place)
    return events


def in_docs() -> dict[str, Event]:
    """Every event of the table."""
    return {
        name: Event(set(levels.split(", ")), set(re.findall(r"`(\w+)`", fields)))
        for name, levels, fields, _meaning, _action in ROW.findall((ROOT / "docs" / "events.md").read_text())
    }


CODE, DOCS = in_code(), in_docs()


def test_the_table_has_every_event_and_no_other() -> None:
    assert CODE.keys() - DOCS.keys() == set(), "events that docs/events.md does not list"
    assert DOCS.keys() - CODE.keys() == set(), "events that nothing logs"
    rows = [name for name, *_ in ROW.findall((ROOT / "docs" / "events.md").read_text())]
    assert len(rows) == len(set(rows))
    assert len(rows) > 20


@pytest.mark.parametrize("name", sorted(CODE.keys() & DOCS.keys()))
def test_levels_and_fields_match_the_code(name: str) -> None:
    assert DOCS[name].levels == CODE[name].levels
    assert DOCS[name].fields == CODE[name].fields


def test_each_event_is_logged_in_one_function() -> None:
    assert {name: event.places for name, event in CODE.items() if len(event.places) > 1} == {}


def test_every_logger_is_named_log() -> None:
    for path in [*ROOT.glob("worker/**/*.py"), *ROOT.glob("producers/**/*.py")]:
        for line in path.read_text().splitlines():
            if "get_logger(" in line:
                assert re.match(r"(log|\s+self\._log) = ", line), f"{path}: {line}"


def test_events_that_are_not_literal_are_reported() -> None:
    for source, trouble in (
        ("log.info(name)", "not a literal"),
        ("log.info('a', 1)", "fields need names"),
        ("log.exception('a')", "not an allowed level"),
        ("def f(**fields):\n  log.info('a', **fields)", "not literals"),
        ("log.info('a', **f())", "not literals"),
    ):
        with pytest.raises(AssertionError, match=trouble):
            list(logged(source))
    source = (
        "def f():\n x = {'b': 1} if c else {'d': 2}\n x['e'] = 3\n log.info('a', f=4, **x, **({'g': 5} if c else {}))"
    )
    assert [fields for _, _, fields, _ in logged(source)] == [{"b", "d", "e", "f", "g"}]


if __name__ == "__main__":
    for name, event in sorted(CODE.items()):
        fields = ", ".join(f"`{field}`" for field in sorted(event.fields))
        sys.stdout.write(f"| `{name}` | {', '.join(sorted(event.levels))} | {fields} | | | {event.places}\n")

"""Every promise of docs/promises.md names tests, and the tests exist."""

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROW = re.compile(r"^\| (P\d+) \| [^|]+ \| ([^|]+) \|$", re.MULTILINE)
ROWS = dict(ROW.findall((ROOT / "docs" / "promises.md").read_text()))


def test_every_promise_has_a_row() -> None:
    assert list(ROWS) == [f"P{number}" for number in range(1, 13)]


def test_every_named_test_exists() -> None:
    for promise, tests in ROWS.items():
        named = re.findall(r"`([^`]+)`", tests)
        assert len(named) >= 2, promise
        for test in named:
            file, _, function = test.partition("::")
            assert function in functions(file), f"{promise}: {test}"


@cache
def functions(file: str) -> set[str]:
    """The names of the tests in a file."""
    tree = ast.parse((ROOT / file).read_text())
    return {
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }

"""Every key is spelled in `producers/keys.py` and nowhere else, and scripts use the same keys as Python."""

import inspect
import re
from pathlib import Path
from typing import Any

import pytest
from fakeredis import FakeRedis

from producers import keys

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted(path for package in ("producers", "worker") for path in (ROOT / package).rglob("*.lua"))
MODULES = sorted(path for package in ("producers", "worker") for path in (ROOT / package).rglob("*.py"))

LITERAL_IN_LUA = re.compile(r"""arq:|['"]:|\.\.\s*['"][^'"]*:|1e15|10{15}""")
LITERAL_IN_PYTHON = re.compile(r"""["']arq:|\{[a-z_.]*queue[a-z_]*\}:[a-z]|1e15""", re.IGNORECASE)


def literal_keys(pattern: re.Pattern[str], source: str) -> list[str]:
    return [line.strip() for line in source.splitlines() if pattern.search(line)]


def evaluate(script: str, *arguments: str) -> Any:
    """Run a script after the names that it uses."""
    return FakeRedis().eval(keys.lua_names(script) + script, 0, *arguments)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_script_spells_no_key(script: Path) -> None:
    assert literal_keys(LITERAL_IN_LUA, script.read_text()) == []


@pytest.mark.parametrize(
    "line",
    [
        "redis.call('ZREM', 'arq:abort', id)",
        "local dead = queue .. ':dead'",
        'local name = queue .. ":claim:" .. id',
        "redis.call('RENAME', key, key .. ':foreign')",
        "local PARKED_MS = 1e15",
        "-- under arq:dead:<id>",
    ],
)
def test_a_literal_key_in_a_script_is_found(line: str) -> None:
    assert literal_keys(LITERAL_IN_LUA, f"local a = 1\n{line}") == [line]


def test_no_other_module_spells_a_key() -> None:
    found = {
        path.relative_to(ROOT).as_posix(): lines
        for path in MODULES
        if (lines := literal_keys(LITERAL_IN_PYTHON, path.read_text()))
    }

    assert found.keys() == {"producers/keys.py"}


@pytest.mark.parametrize("name", keys.LUA_FUNCTIONS)
def test_a_key_is_the_same_in_lua_and_in_python(name: str) -> None:
    key = keys.LUA_FUNCTIONS[name]
    arguments = [f"an-{parameter}@k" for parameter in inspect.signature(key).parameters]
    call = f"return {name}({', '.join(f'ARGV[{number}]' for number in range(1, len(arguments) + 1))})"

    assert evaluate(call, *arguments) == key(*arguments).encode()


def test_the_constants_are_the_same_in_lua_and_in_python() -> None:
    script = "return {ABORT_KEY, string.format('%.17g', PARKED_MS)}"

    abort, parked_ms = evaluate(script)

    assert (abort.decode(), float(parked_ms)) == (keys.ABORT, keys.PARKED_MS)

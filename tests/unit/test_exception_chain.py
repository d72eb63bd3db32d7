"""Exceptions are described by the types and places of their chains: bounded, and without any of their texts."""

import asyncio
import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from worker.model.failures import MAX_LINKS, MORE, causes, describe

SECRET = "ada@example.com"


def raised(error: BaseException) -> BaseException:
    try:
        raise error  # noqa: TRY301  # for its place
    except BaseException as caught:  # noqa: BLE001  # includes those that are not an `Exception`
        return caught


def types(error: BaseException) -> list[str]:
    return [link["type"] for link in causes(error)]


class ServerError(Exception):
    sqlstate = "23505"


def test_a_link_has_type_sqlstate_and_place() -> None:
    error = raised(DBAPIError(SECRET, {"email": SECRET}, ServerError(SECRET)))
    line = raised.__code__.co_firstlineno + 2
    assert causes(error) == [
        {"type": "sqlalchemy.exc.DBAPIError", "at": f"tests/unit/test_exception_chain.py:{line} in raised"},
        {"type": f"{__name__}.ServerError", "sqlstate": "23505"},
    ]
    assert describe(error) == f"DBAPIError from ServerError[23505] at test_exception_chain.py:{line} in raised"


def test_the_place_is_not_in_a_library() -> None:
    def connect() -> None:
        make_url(SECRET)

    with pytest.raises(ArgumentError) as caught:
        connect()
    assert "site-packages" in str(caught.traceback[-1].path)
    (link,) = causes(caught.value)
    for described in (link["at"], describe(caught.value)):
        assert described.endswith(" in connect")


async def test_the_place_is_not_in_the_standard_library() -> None:
    with pytest.raises(TimeoutError) as caught:
        async with asyncio.timeout(0):
            await asyncio.Event().wait()
    links = causes(caught.value)
    assert [link["type"] for link in links] == ["TimeoutError", "asyncio.exceptions.CancelledError"]
    for link in links:
        assert link["at"].startswith("tests/unit/test_exception_chain.py:")


def test_the_place_is_in_the_worker_where_it_is_installed_as_a_library(tmp_path: Path) -> None:
    # Given: the worker among the libraries of an environment, as in the image.
    library = tmp_path / "lib" / "site-packages"
    (library / "worker").mkdir(parents=True)
    (library / "worker" / "handlers.py").write_text("import helper\ndef handle():\n    helper.fail()\n")
    (library / "helper.py").write_text("def fail():\n    raise LookupError\n")
    script = f"""
        import sys, sysconfig
        paths = sysconfig.get_paths()
        sysconfig.get_path = lambda name: paths[name] if "std" in name else {str(library)!r}
        from worker.model.failures import causes
        import worker
        sys.path.insert(0, {str(library)!r})
        worker.__path__.append({str(library / "worker")!r})
        from worker.handlers import handle
        try:
            handle()
        except LookupError as error:
            print(causes(error)[0]["at"])
    """

    # When: something fails in a library that it calls.
    ran = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True)

    # Then: the place is the worker's.
    assert ran.stdout == "worker/handlers.py:3 in handle\n"


def test_a_chain_is_the_one_that_python_reports() -> None:
    def handling(*, quietly: bool) -> BaseException:
        try:
            try:
                raise KeyError(SECRET)  # noqa: TRY301  # for its place in the chain
            except KeyError:
                if quietly:
                    raise LookupError(SECRET) from None
                raise LookupError(SECRET)  # noqa: B904  # the implicit context is tested
        except LookupError as error:
            return error

    assert types(handling(quietly=False)) == ["LookupError", "KeyError"]
    assert types(handling(quietly=True)) == ["LookupError"]
    caused = handling(quietly=False)
    caused.__cause__ = OSError(SECRET)
    assert types(caused) == ["LookupError", "OSError"]


def test_a_group_has_a_chain_for_each_member() -> None:
    cause, first, second = OSError(SECRET), KeyError(SECRET), ValueError(SECRET)
    first.__cause__ = second.__cause__ = cause
    inner = ExceptionGroup(SECRET, [second])
    (link,) = causes(BaseExceptionGroup(SECRET, [first, inner, KeyboardInterrupt()]))
    assert link == {
        "type": "BaseExceptionGroup",
        "errors": [
            [{"type": "KeyError"}, {"type": "OSError"}],
            [{"type": "ExceptionGroup", "errors": [[{"type": "ValueError"}]]}],  # its cause is listed above
            [{"type": "KeyboardInterrupt"}],
        ],
    }


def nested(depth: int) -> Exception:
    error: Exception = KeyError(SECRET)
    for _ in range(depth):
        error = ExceptionGroup(SECRET, [error])
    return error


def chained(length: int) -> Exception:
    error: Exception = KeyError(SECRET)
    for _ in range(length):
        outer = LookupError(SECRET)
        outer.__cause__ = error
        error = outer
    return error


def with_note(error: Exception) -> Exception:
    error.add_note(SECRET)
    return error


@pytest.mark.parametrize(
    "error",
    [
        chained(10_000),
        nested(500),
        ExceptionGroup(SECRET, [KeyError(SECRET)] * 10_000),
        ExceptionGroup(SECRET, [chained(100) for _ in range(100)]),
        with_note(LookupError()),
        UnicodeDecodeError("utf-8", SECRET.encode(), 0, 1, SECRET),
    ],
    ids=["long", "deep", "one many times", "wide", "with a note", "with attributes"],
)
def test_any_exception_has_few_links_and_no_text(error: Exception) -> None:
    links = json.dumps(causes(error))
    assert links.count('"type"') <= MAX_LINKS + links.count(MORE["type"])
    for described in (links, describe(error)):
        assert len(described) < 1000
        assert SECRET not in described


def test_links_that_are_left_out_are_marked() -> None:
    assert causes(chained(MAX_LINKS - 1))[-1] == {"type": "KeyError"}
    assert causes(chained(MAX_LINKS))[-1] == MORE
    group = ExceptionGroup("", [KeyError() for _ in range(MAX_LINKS)])
    assert causes(group)[0]["errors"][-1] == [MORE]


def test_a_circle_is_listed_once() -> None:
    first, second = LookupError(), KeyError()
    first.__cause__, second.__cause__ = second, first
    assert types(first) == ["LookupError", "KeyError"]
    assert describe(first) == "LookupError from KeyError"


def test_an_attribute_of_another_type_is_left_out() -> None:
    class Odd(Exception):
        orig: Any = SECRET
        sqlstate: Any = 23505

    assert causes(Odd()) == [{"type": f"{__name__}.{Odd.__qualname__}"}]

"""Are arq and SQLAlchemy as this worker relies on them, and is it told by name when they are not?"""

import inspect
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from arq.worker import Worker
from redis.asyncio.connection import AbstractConnection, ConnectionPool
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg

from worker import app
from worker.engine import compatibility
from worker.engine.compatibility import Incompatible, check
from worker.engine.worker import EngineWorker
from worker.settings import Settings

SETTINGS = Settings.load(DATABASE_URL="postgresql://localhost/none", REDIS_URL="redis://localhost")
ROOT = Path(__file__).parents[2]


def changed(name: str, value: object) -> type:
    """arq's worker with one thing changed, as another version may have it."""
    return type("Worker", (Worker,), {name: value})


def test_what_is_installed_fits() -> None:
    check({*app.worker_settings(SETTINGS), "redis_pool"})


@pytest.mark.parametrize(
    ("part", "name"),
    [
        ("connection", "_socket_is_empty"), ("connection", "check_health"), ("connection", "send_packed_command"),
        ("pool", "get_available_connection"), ("pool", "ensure_connection"),
    ],
)  # fmt: skip
def test_what_is_gone_from_redis_py_is_named(part: str, name: str) -> None:
    whole = {"connection": AbstractConnection, "pool": ConnectionPool}[part]
    without = type("Without", (whole,), {name: None})
    with pytest.raises(
        Incompatible, match=rf"^redis [\d.]+ does not fit this worker: \w+\.{name} is missing: pip install"
    ):
        check([], **{part: without})  # type: ignore[arg-type]  # one of two


def test_connections_without_their_streams_are_told() -> None:
    def init(self: Any) -> None: ...

    with pytest.raises(Incompatible, match=r"Connection\._reader is missing; Connection\._writer is missing"):
        check([], connection=type("Connection", (AbstractConnection,), {"__init__": init}))


def test_a_driver_that_takes_no_way_to_connect_is_told() -> None:
    def connect(self: Any, *arguments: Any, **options: Any) -> None: ...

    with pytest.raises(Incompatible, match=r"SQLAlchemy .*: connect_args takes no async_creator_fn: pip install"):
        check([], driver=type("Driver", (), {"connect": connect}))


def test_all_that_arqs_worker_has_and_ours_overrides_is_checked() -> None:
    ours = {name for name in vars(EngineWorker) if name in vars(Worker) and name not in {"__init__", "__doc__"}}

    assert {name for name in ours if not name.startswith("__")} <= {*compatibility.METHODS}


@pytest.mark.parametrize("name", compatibility.METHODS)
def test_a_method_that_is_gone_is_named(name: str) -> None:
    with pytest.raises(Incompatible, match=f"Worker.{name} is missing"):
        check([], worker=changed(name, None))


def other_name(self: Any, moment: Any, delay: Any) -> None: ...
def by_keyword(self: Any, *, n: Any, delay: Any) -> None: ...
def in_order(self: Any, n: Any, delay: Any) -> None: ...
def nothing(self: Any) -> None: ...
def one_more(self: Any, loop: Any) -> None: ...
def other_order(self: Any, handler: Any, signum: Any) -> None: ...


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("run_cron", other_name),
        ("run_cron", by_keyword),
        ("handle_sig", nothing),
        ("main", one_more),
        ("_add_signal_handler", other_order),
    ],
)
def test_a_method_that_takes_something_else_is_named(name: str, method: Any) -> None:
    with pytest.raises(Incompatible, match=f"Worker.{name} does not take"):
        check([], worker=changed(name, method))


@pytest.mark.parametrize("name", compatibility.CALLS)
def test_a_method_that_does_not_call_ours_any_more_is_named(name: str) -> None:
    with pytest.raises(Incompatible, match=f"Worker.{name} does not use {compatibility.CALLS[name][0]}"):
        check([], worker=changed(name, nothing if name != "run_cron" else in_order))


def test_an_attribute_and_an_argument_that_are_gone_are_named() -> None:
    with pytest.raises(Incompatible, match=re.escape("Worker.health_check_key is missing")):
        check([], worker=changed("__init__", nothing))
    with pytest.raises(Incompatible, match="Worker takes no job_serialiser"):
        check(["job_serialiser"])


def test_another_series_of_arq_is_refused_in_one_line_with_the_way_out() -> None:
    with pytest.raises(Incompatible) as caught:
        check([], arq_version="0.29.0")

    assert str(caught.value) == (
        f"arq 0.29.0 does not fit this worker: it is not of the series 0.28.x: pip install '{compatibility.ARQ_PIN}'"
    )


def test_a_dialect_without_its_ping_is_told() -> None:
    class Silent(PGDialect_asyncpg):
        do_ping = None  # type: ignore[assignment]

    class Other(PGDialect_asyncpg):
        _do_ping_w_event = nothing  # type: ignore[assignment]

    with pytest.raises(Incompatible, match=r"^SQLAlchemy .*do_ping\(dbapi_connection\) is missing"):
        check([], dialect=Silent)
    with pytest.raises(Incompatible, match="the pool does not ping by"):
        check([], dialect=Other)


def test_the_pins_are_those_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pins = {*project["dependencies"], *project["optional-dependencies"]["worker"]}

    assert {compatibility.ARQ_PIN, compatibility.SQLALCHEMY_PIN, compatibility.REDIS_PIN} <= pins
    assert compatibility.ARQ_PIN.startswith(f"arq>={compatibility.ARQ_SERIES.rstrip('.')}")


def test_no_worker_is_made_that_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compatibility, "version", lambda _: "0.27.0")

    with pytest.raises(Incompatible):
        app.worker_settings(SETTINGS)


def test_what_is_overridden_takes_what_arq_gives() -> None:
    for name in compatibility.METHODS:
        theirs, ours = inspect.signature(getattr(Worker, name)), inspect.signature(getattr(EngineWorker, name))
        assert [*ours.parameters] == [*theirs.parameters], name

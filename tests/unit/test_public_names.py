"""The public names of producers, and what their import loads."""

import json
import subprocess
import sys

import pytest

import producers
from producers import errors
from tests.waiting import PATIENCE_SECONDS

NAMES = """
    CreatePost CreateUser DeletePost DeleteUser Deleted EnqueueError EnqueueUnconfirmed IdempotencyConflict
    InvalidMessage JobCancelled JobDead JobError JobHandle JobNotFound JobRejected JobStatus Message PartialEnqueueError
    Post PostChanges Producer ProducerError QueueFull RedisRefused RedisUnavailable Reply Request ResultTimeout
    SyncJobHandle SyncProducer UpdatePost UpdateUser User UserChanges
"""


def loaded_by(statement: str) -> set[str]:
    """The top-level modules that a statement loads in a new interpreter."""
    source = f"{statement}\nimport json, sys; print(json.dumps(sorted({{n.partition('.')[0] for n in sys.modules}})))"
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, check=True, timeout=PATIENCE_SECONDS, text=True
    )
    return set(json.loads(done.stdout))


def test_the_public_names_are_exactly_these() -> None:
    assert producers.__all__ == NAMES.split()
    assert all(hasattr(producers, name) for name in producers.__all__)


def test_every_error_is_public() -> None:
    raised = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)}

    assert raised <= set(producers.__all__)
    assert all(issubclass(getattr(errors, name), errors.ProducerError) for name in raised)


@pytest.mark.parametrize(
    ("name", "builtin"),
    [
        ("InvalidMessage", ValueError),
        ("RedisUnavailable", ConnectionError),
        ("EnqueueUnconfirmed", TimeoutError),
        ("ResultTimeout", TimeoutError),
        ("JobNotFound", LookupError),
    ],
)
def test_an_error_is_also_an_instance_of_a_builtin_exception(name: str, builtin: type[Exception]) -> None:
    assert issubclass(getattr(producers, name), builtin)


@pytest.mark.parametrize("statement", ["import producers", "import producers.contract"])
def test_importing_producers_loads_no_database_and_no_command_line(statement: str) -> None:
    loaded = loaded_by(statement)

    assert "pydantic" in loaded
    assert not loaded & {
        "sqlalchemy",
        "asyncpg",
        "worker",
        "typer",
        "rich",
        "structlog",
        "pydantic_settings",
        "uvloop",
        "pickletools",
    }


def test_the_command_loads_no_database() -> None:
    assert not loaded_by("import producers.cli.app") & {"sqlalchemy", "asyncpg", "worker", "structlog"}

"""How long and how hard: the short form runs with all tests, the long one by the environment."""

import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def seed() -> int:
    """What the run draws its randomness from; `FAULTS_SEED` repeats one."""
    return int(os.environ.get("FAULTS_SEED", random.randrange(2**32)))  # noqa: S311


@pytest.fixture
def scale() -> int:
    """How many times the short form's jobs and faults; `FAULTS_SCALE`."""
    return int(os.environ.get("FAULTS_SCALE", "1"))


@pytest.fixture
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="faults-", dir="/tmp"))  # PostgreSQL's user must reach it
    path.chmod(0o711)
    yield path
    shutil.rmtree(path, ignore_errors=True)

"""Servers and a seed for the short form of the suite; `python -m tests.faults` runs the long form."""

import os
import random
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.faults.cluster import Cluster, open_cluster


@pytest.fixture
def seed() -> int:
    """The seed of the run; `FAULTS_SEED` repeats one."""
    seed = int(os.environ.get("FAULTS_SEED", random.randrange(2**32)))  # noqa: S311  # not secret
    print(f"FAULTS_SEED={seed}")  # noqa: T201  # pytest shows it for a failure
    return seed


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def cluster() -> AsyncIterator[Cluster]:
    """Servers for all runs; each run empties them first."""
    async with open_cluster() as cluster:
        yield cluster

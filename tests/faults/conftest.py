"""Servers and a seed for the short form; `python -m tests.faults` is the long one."""

import os
import random
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.faults.house import House, house


@pytest.fixture
def seed() -> int:
    """What the run draws its randomness from; `FAULTS_SEED` repeats one."""
    seed = int(os.environ.get("FAULTS_SEED", random.randrange(2**32)))  # noqa: S311  # not secret
    print(f"FAULTS_SEED={seed}")  # noqa: T201  # what repeats a failure
    return seed


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def the_house() -> AsyncIterator[House]:
    """Servers for all the runs: each finds them empty."""
    async with house() as made:
        yield made

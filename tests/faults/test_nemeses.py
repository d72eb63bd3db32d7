"""Every nemesis by itself, and some at random: all invariants hold after each."""

import os

import pytest

from tests.faults.house import House
from tests.faults.nemeses import ALL, NEMESES, RANDOM
from tests.faults.nemeses.clocks import fake_clock
from tests.faults.nemesis import How, Nemesis, run

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def survives(house: House, nemesis: Nemesis, how: How) -> None:
    done = await run(house, nemesis, how)

    assert not done.verdict.wrong, str(done)
    assert done.faults


BATCH = 20
# Those that need other workers come last: the others share theirs.
ORDER = sorted(NEMESES.values(), key=lambda nemesis: len(nemesis.settings))


@pytest.mark.parametrize("name", [nemesis.name for nemesis in ORDER])
async def test_invariants_hold_under(name: str, the_house: House, seed: int) -> None:
    if name == "clocks" and fake_clock() is None:
        assert "CI" not in os.environ, "libfaketime is missing"
        pytest.skip("libfaketime is not installed")
    await survives(the_house, NEMESES[name], How(seed))


async def test_invariants_hold_under_several_at_random(the_house: House, seed: int) -> None:
    await survives(the_house, RANDOM, How(seed))


@pytest.mark.parametrize("name", ["crash-at-each-step", "database-crashed", "random"])
async def test_invariants_hold_with_many_jobs_in_a_transaction(name: str, the_house: House, seed: int) -> None:
    await survives(the_house, ALL[name], How(seed, batch=BATCH))

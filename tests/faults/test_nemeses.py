"""All invariants hold after each nemesis, and after two at random."""

import os

import pytest

from tests.faults.cluster import Cluster
from tests.faults.nemeses import ALL, NEMESES, available
from tests.faults.nemesis import RunOptions, run_nemesis

pytestmark = pytest.mark.asyncio(loop_scope="session")

BATCH = 20
# Nemeses with their own settings come last: the others share workers.
ORDER = sorted(NEMESES.values(), key=lambda nemesis: len(nemesis.settings))


async def assert_invariants_hold(cluster: Cluster, name: str, options: RunOptions) -> None:
    run = await run_nemesis(cluster, ALL[name], options)

    assert not run.verdict.violations, str(run)
    assert run.faults


@pytest.mark.parametrize("name", [*(nemesis.name for nemesis in ORDER), "random"])
async def test_invariants_hold_under(name: str, cluster: Cluster, seed: int) -> None:
    if name in NEMESES and NEMESES[name] not in available():
        assert "CI" not in os.environ, "libfaketime is missing"
        pytest.skip("libfaketime is not installed")
    await assert_invariants_hold(cluster, name, RunOptions(seed))


@pytest.mark.parametrize("name", ["crash-at-each-step", "database-crashed", "random"])
async def test_invariants_hold_with_many_jobs_in_a_transaction(name: str, cluster: Cluster, seed: int) -> None:
    await assert_invariants_hold(cluster, name, RunOptions(seed, batch=BATCH))

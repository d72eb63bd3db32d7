"""All nemeses, and one that draws two of them at random."""

import asyncio
import copy

from tests.faults.nemeses.dead_letters import DEAD_LETTERS
from tests.faults.nemeses.jobs import JOBS
from tests.faults.nemeses.network import NETWORK
from tests.faults.nemeses.poison import POISON
from tests.faults.nemeses.servers import SERVERS
from tests.faults.nemeses.workers import WORKERS, faketime_library
from tests.faults.nemesis import Nemesis
from tests.faults.scenario import Scenario

NEMESES: dict[str, Nemesis] = {
    nemesis.name: nemesis
    for nemesis in sorted(
        [*WORKERS, *NETWORK, *SERVERS, *POISON, *JOBS, *DEAD_LETTERS], key=lambda nemesis: nemesis.number
    )
}


def available() -> list[Nemesis]:
    """The nemeses that can run on this machine."""
    return [nemesis for nemesis in NEMESES.values() if nemesis.name != "clocks" or faketime_library() is not None]


async def two_at_random(scenario: Scenario) -> None:
    """Two nemeses with different targets at the same time, twice."""
    nemeses = available()
    for _ in range(2):
        first = scenario.random.choice(nemeses)
        second = scenario.random.choice([nemesis for nemesis in nemeses if nemesis.target != first.target])
        scenario.notes.append(f"{first.name} and {second.name} at once")
        await asyncio.gather(*(_strike_once(scenario, nemesis) for nemesis in (first, second)))
        await scenario.cluster.heal()
        await scenario.restore_workers()


async def _strike_once(scenario: Scenario, nemesis: Nemesis) -> None:
    # In the short form, and without its violations: one nemesis may undo what the other expects.
    inner = copy.copy(scenario)
    inner.seconds, inner.faults, inner.violations = 0, 0, []
    try:
        await nemesis.strike(inner)
    except Exception as error:  # noqa: BLE001  # one may have stopped a server that the other needs
        scenario.notes.append(f"{nemesis.name} failed: {type(error).__name__}")
    finally:
        scenario.faults += inner.faults


RANDOM = Nemesis(0, "random", two_at_random, "workers", kills_jobs=True)

ALL = {**NEMESES, RANDOM.name: RANDOM}

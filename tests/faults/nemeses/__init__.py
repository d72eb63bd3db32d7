"""All that may happen to the worker, as FAULTS lists it; each by itself, and any of them at random."""

from tests.faults.nemeses.clocks import CLOCKS, fake_clock
from tests.faults.nemeses.crashes import CRASHES
from tests.faults.nemeses.handlers import HANDLERS
from tests.faults.nemeses.jobs import JOBS
from tests.faults.nemeses.letters import LETTERS
from tests.faults.nemeses.poison import POISON
from tests.faults.nemeses.servers import SERVERS
from tests.faults.nemeses.together import at_random
from tests.faults.nemeses.ways import WAYS
from tests.faults.nemesis import Nemesis

NEMESES: dict[str, Nemesis] = {
    nemesis.name: nemesis
    for nemesis in sorted(
        [*CRASHES, *WAYS, *SERVERS, *HANDLERS, *POISON, *JOBS, *LETTERS, *CLOCKS], key=lambda nemesis: nemesis.number
    )
}

RANDOM = at_random([nemesis for nemesis in NEMESES.values() if nemesis.name != "clocks" or fake_clock() is not None])

ALL = {**NEMESES, RANDOM.name: RANDOM}

"""The measurements of each scenario: one trial per system, which is repeated in every round."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from benchmarks import kills, pgbench
from benchmarks.catalog import CREATE_USER, ENQUEUE, KILLS, LATENCY, MIXED, NOOP, PROCESSES, Scenario
from benchmarks.results import Sample
from benchmarks.systems import PEERS, PGBENCH_LABEL, USERPOST, USERPOST_BATCHES, System
from benchmarks.testbed import Testbed
from benchmarks.throughput import database_rate, noop_rate

PROCESS_COUNTS = (1, 2, 4, 8)

# The first round's rates, in jobs per second, on two small cores. Later rounds use what the previous one measured.
_EXPECTED_RATES = {CREATE_USER: 500, MIXED: 500, NOOP: 1500}
_OWN_EXPECTED_RATES = {(CREATE_USER, USERPOST_BATCHES): 9000, (MIXED, USERPOST_BATCHES): 9000, (NOOP, USERPOST): 8000}
_MIN_JOBS, _MAX_JOBS = 500, 100_000


@dataclass(frozen=True)
class Trial:
    """The measurement of one system."""

    label: str
    measure: Callable[[], Sequence[Sample]]
    """Returns a sample of each of the scenario's metrics, in their order."""


@dataclass(frozen=True)
class Trials:
    """Makes the trials of scenarios, in their long form or their quick one."""

    testbed: Testbed
    quick: bool
    _rates: dict[tuple[Scenario, System], float] = field(default_factory=dict)
    """What was measured last."""

    @property
    def seconds(self) -> float:
        """How long a measurement of throughput takes, about."""
        return 2.5 if self.quick else 6

    def of(self, scenario: Scenario) -> list[Trial]:
        """The trials of one round, in the order in which the report shows the systems."""
        every = (*PEERS, USERPOST, USERPOST_BATCHES)
        trials: Mapping[Scenario, Callable[[], list[Trial]]] = {
            CREATE_USER: lambda: [
                *self._each(every, self._throughput, CREATE_USER),
                Trial(PGBENCH_LABEL, self._pgbench),
            ],
            MIXED: lambda: self._each(every, self._throughput, MIXED),
            NOOP: lambda: self._each((*PEERS, USERPOST), self._throughput, NOOP),
            LATENCY: lambda: self._each((*PEERS[1:], USERPOST), self._latency),
            ENQUEUE: lambda: self._each((*PEERS, USERPOST), self._enqueue),
            PROCESSES: lambda: [self._processes_trial(number) for number in PROCESS_COUNTS],
            KILLS: lambda: self._each(kills.SYSTEMS, self._kills),
        }
        return trials[scenario]()

    def _each(
        self, systems: Sequence[System], measure: Callable[..., Sequence[Sample]], *arguments: object
    ) -> list[Trial]:
        return [Trial(system.label, partial(measure, system, *arguments)) for system in systems]

    def _throughput(self, system: System, scenario: Scenario) -> list[Sample]:
        key = scenario, system
        rate = self._rates.get(key) or _OWN_EXPECTED_RATES.get(key) or _EXPECTED_RATES[scenario]
        jobs = max(_MIN_JOBS, min(_MAX_JOBS, round(rate * self.seconds)))
        if scenario is NOOP:
            sample = noop_rate(self.testbed, system, jobs)
        else:
            sample = database_rate(self.testbed, system, scenario.name, jobs)
        self._rates[key] = sample.value
        return [sample]

    def _pgbench(self) -> list[Sample]:
        with self.testbed.servers.fresh() as database:
            return [Sample(pgbench.transaction_rate(database.url, self.seconds))]

    def _latency(self, system: System) -> list[Sample]:
        count = 100 if self.quick else 300
        with self.testbed.servers.fresh(notify=True) as database, self.testbed.worker(system, database.url):
            latencies = self.testbed.call(system, database.url, "latency", str(count))["ms"]
        percentiles = statistics.quantiles(latencies, n=100)
        return [Sample(percentiles[49]), Sample(percentiles[98])]

    def _enqueue(self, system: System) -> list[Sample]:
        bulk, single = (5_000, 500) if self.quick else (20_000, 2_000)
        samples = []
        for command, jobs in (("enqueue", bulk), ("enqueue-single", single)):
            with self.testbed.servers.fresh() as database:
                answer = self.testbed.call(system, database.url, command, "create_user", str(jobs))
            samples.append(Sample(jobs / answer["seconds"]))
        return samples

    def _kills(self, system: System) -> list[Sample]:
        return kills.kill_workers(self.testbed, system, 800 if self.quick else 3000)

    def _processes_trial(self, number: int) -> Trial:
        def measure() -> list[Sample]:
            # The first processes work while others still start, which is not measured.
            jobs = (30_000 + 10_000 * number) * (1 if self.quick else 2)
            return [noop_rate(self.testbed, USERPOST, jobs, processes=number)]

        return Trial(f"{number} process{'es' if number > 1 else ''}", measure)

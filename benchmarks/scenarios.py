"""What is measured: each scenario is a list of steps, one for each system, which take turns in every round."""

import os
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import uvloop

from benchmarks import claims, kills, observing, pgbench, transaction
from benchmarks.measure import Bench, Rate
from benchmarks.results import Sample
from benchmarks.systems import (
    ARQ_AS_IT_COMES,
    BEST,
    NAMES,
    OURS,
    OURS_BATCH,
    OURS_NOOP,
    OURS_SESSION,
    PEERS,
    USUAL,
    System,
)

# Jobs a second on two small cores: how many jobs the first round takes. The next ones go by what it came to.
_GUESSES = {"create_user": 500, "mixed": 500, "noop": 1500}
_OTHER_GUESSES = {ARQ_AS_IT_COMES.label: 100, OURS_SESSION.label: 1200, OURS_BATCH.label: 9000, OURS.label: 8000}
_FEWEST, _MOST = 500, 100_000
_BACKLOG_JOBS = 20_000
_SETTLE_SECONDS = 5


@dataclass(frozen=True)
class Step:
    """One measurement."""

    figures: tuple[str, ...]
    system: str
    run: Callable[[], Iterable[Sample]]


@dataclass
class Scenarios:
    """All the measurements, in their long form or their quick one."""

    bench: Bench
    quick: bool
    _paces: dict[tuple[str, str], float] = field(default_factory=dict)

    def named(self) -> Mapping[str, Callable[[], list[Step]]]:
        """The scenarios by name."""
        return {
            "create_user": self._create_user,
            "mixed": lambda: [self._rate("mixed", system) for system in (*BEST, OURS_SESSION, OURS_BATCH)],
            "refused": lambda: [
                self._refused("create_user", claims.NONE_REFUSED),
                self._refused("refused", claims.SOME_REFUSED),
            ],
            "noop": lambda: [self._rate("noop", system) for system in (*PEERS, OURS_NOOP)],
            "latency": self._latencies,
            "enqueue": lambda: [self._enqueue(system) for system in (*PEERS, OURS)],
            "backlog": lambda: [self._backlog(jobs) for jobs in claims.BACKLOGS if jobs <= self._most_queued],
            "processes": lambda: [self._processes(number) for number in claims.PROCESSES],
            "idle": lambda: [Step(("idle_cpu",), OURS.label, self._idle)],
            "transaction": lambda: [Step(("transaction",), claims.TRANSACTION_OURS, self._transaction)],
            "observed": lambda: [
                self._observed(*pair, told=told) for pair in observing.PAIRS for told in (True, False)
            ],
            "kills": lambda: [self._kills(system) for system in kills.SYSTEMS],
        }

    @property
    def _most_queued(self) -> int:
        return 100_000 if self.quick else claims.BACKLOGS[-1]

    @property
    def _seconds(self) -> float:
        return 2.5 if self.quick else 6

    def _jobs(self, figure: str, label: str) -> int:
        guess = _OTHER_GUESSES.get(label, _GUESSES[figure])
        return max(_FEWEST, min(_MOST, round(self._paces.get((figure, label), guess) * self._seconds)))

    def _rate(self, figure: str, system: System) -> Step:
        def run() -> Iterable[Sample]:
            jobs = self._jobs(figure, system.label)
            if figure == "noop":
                rate = self.bench.noop_rate(system, jobs)
            else:
                rate = self.bench.database_rate(system, figure, jobs)
            self._paces[figure, system.label] = rate.per_second
            yield _sample(figure, system.label, rate)

        return Step((figure,), system.label, run)

    def _refused(self, scenario: str, label: str) -> Step:
        def run() -> Iterable[Sample]:
            jobs = self._jobs("create_user", OURS_BATCH.label)
            yield _sample("refused", label, self.bench.database_rate(OURS_BATCH, scenario, jobs))

        return Step(("refused",), label, run)

    def _create_user(self) -> list[Step]:
        pairs = [step for pair in zip(USUAL, BEST, strict=True) for step in pair]
        systems = (ARQ_AS_IT_COMES, *pairs, OURS_SESSION, OURS_BATCH)
        steps = [self._rate("create_user", system) for system in systems]
        return [*steps, Step(("create_user",), claims.PGBENCH, self._pgbench)]

    def _observed(self, system: System, silent: System, *, told: bool) -> Step:
        def run() -> Iterable[Sample]:
            jobs = self._jobs("create_user", system.label)
            if told:
                port = observing.free_port()
                with observing.scraped(port):
                    rate = self.bench.database_rate(observing.told(system, port), "create_user", jobs)
            else:
                rate = self.bench.database_rate(silent, "create_user", jobs)
            yield _sample("observed", (system if told else silent).label, rate)

        return Step(("observed",), (system if told else silent).label, run)

    def _latencies(self) -> list[Step]:
        some = [system for system in PEERS if system.label in {NAMES["saq"], NAMES["taskiq"], NAMES["streaq"]}]
        usual = [system for system in USUAL if system.label == claims.SAQ_USUAL]
        return [self._latency(system) for system in (*usual, *some, OURS)]

    def _latency(self, system: System) -> Step:
        def run() -> Iterable[Sample]:
            programs, count = self.bench.programs, 100 if self.quick else 300
            with self.bench.servers.fresh(telling=True) as database, programs.worker(system, database.url):
                taken = programs.call(system, database.url, "latency", str(count))["ms"]
            percentiles = statistics.quantiles(taken, n=100)
            yield Sample("latency_p50", system.label, percentiles[49])
            yield Sample("latency_p99", system.label, percentiles[98])

        return Step(("latency_p50", "latency_p99"), system.label, run)

    def _enqueue(self, system: System) -> Step:
        def run() -> Iterable[Sample]:
            many, few = (5_000, 500) if self.quick else (20_000, 2_000)
            for figure, command in (
                ("bulk_enqueue", ("enqueue", "create_user", str(many))),
                ("single_enqueue", ("single", str(few))),
            ):
                with self.bench.servers.fresh() as database:
                    self.bench.prepare(system, database.url)
                    taken = self.bench.programs.call(system, database.url, *command)
                yield Sample(figure, system.label, taken["jobs"] / taken["seconds"])

        return Step(("bulk_enqueue", "single_enqueue"), system.label, run)

    def _backlog(self, jobs: int) -> Step:
        largest = jobs == claims.BACKLOGS[-1]

        def run() -> Iterable[Sample]:
            with self.bench.servers.fresh() as database:
                total = str(jobs + _BACKLOG_JOBS)
                self.bench.programs.call(OURS, database.url, "enqueue", "create_user", total)
                rate = self.bench.counted_rate(OURS_NOOP, database.url, _BACKLOG_JOBS)
                yield _sample("backlog", claims.queued(jobs), rate)
                if largest:
                    with self.bench.programs.worker(OURS, database.url) as worker:
                        time.sleep(2 * _SETTLE_SECONDS)
                        worker.check()
                        yield Sample("memory", OURS.label, _peak_memory_mb(worker.process.pid))

        return Step(("backlog",), claims.queued(jobs), run)

    def _processes(self, number: int) -> Step:
        def run() -> Iterable[Sample]:
            # The first ones work while the others are still starting: that part is not measured.
            jobs = (30_000 + 10_000 * number) * (1 if self.quick else 2)
            yield _sample(
                "processes", claims.processes(number), self.bench.noop_rate(OURS_NOOP, jobs, processes=number)
            )

        return Step(("processes",), claims.processes(number), run)

    def _idle(self) -> Iterable[Sample]:
        seconds = 5 if self.quick else 20
        with self.bench.servers.fresh() as database, self.bench.programs.worker(OURS, database.url) as worker:
            time.sleep(_SETTLE_SECONDS)
            before, started = _cpu_seconds(worker.process.pid), time.monotonic()
            time.sleep(seconds)
            worker.check()
            used = _cpu_seconds(worker.process.pid) - before
            yield Sample("idle_cpu", OURS.label, 100 * used / (time.monotonic() - started))

    def _kills(self, system: System) -> Step:
        killing = kills.Killing(self.bench, system, 800 if self.quick else 3_000)
        return Step(kills.FIGURES, system.label, killing.samples)

    def _pgbench(self) -> Iterable[Sample]:
        with self.bench.servers.fresh() as database:
            yield Sample("create_user", claims.PGBENCH, pgbench.rate(database.url, self._seconds))

    def _transaction(self) -> Iterable[Sample]:
        with self.bench.servers.fresh() as database:
            ((ours, usual),) = uvloop.run(transaction.measure(database.url, rounds=1))
        yield Sample("transaction", claims.TRANSACTION_OURS, ours)
        yield Sample("transaction", claims.TRANSACTION_USUAL, usual)


def _sample(figure: str, label: str, rate: Rate) -> Sample:
    return Sample(figure, label, rate.per_second, rate.remark)


def _peak_memory_mb(pid: int) -> float:
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


def _cpu_seconds(pid: int) -> float:
    # The name, which may hold anything, is in brackets.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

"""What was measured, and what medians and ratios come of it."""

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Figure:
    """Something that is measured of several systems."""

    key: str
    title: str
    unit: str
    lower_is_better: bool = False
    decimals: int = 0

    def show(self, value: float) -> str:
        """A value of it, without its unit."""
        return f"{value:,.{self.decimals}f}"


FIGURES: Mapping[str, Figure] = {
    figure.key: figure
    for figure in (
        Figure("create_user", "create_user, queue to committed row", "jobs/s"),
        Figure("mixed", "all six jobs in a fixed proportion", "jobs/s"),
        Figure("refused", "create_user in batches of 64, some of which cannot be honoured", "jobs/s"),
        Figure("noop", "jobs that only count, no database", "jobs/s"),
        Figure("latency_p50", "idle latency, enqueue to committed row, median", "ms", lower_is_better=True, decimals=1),
        Figure("latency_p99", "idle latency, 99th percentile", "ms", lower_is_better=True, decimals=1),
        Figure("bulk_enqueue", "enqueueing create_user in bulk", "jobs/s"),
        Figure("single_enqueue", "enqueueing create_user, one awaited after the other", "jobs/s"),
        Figure("backlog", "jobs that only count, with others queued behind them", "jobs/s"),
        Figure("processes", "jobs that only count, several processes, in total", "jobs/s"),
        Figure("memory", "peak memory of a worker with a million jobs queued", "MB", lower_is_better=True),
        Figure("idle_cpu", "processor time of an idle worker", "% of a core", lower_is_better=True, decimals=2),
        Figure("transaction", "the transaction alone, no queue", "jobs/s"),
        Figure("observed", "create_user, with metrics and logs on, and with neither", "jobs/s"),
        Figure("kill_lost", "lost or late, 100 s after the last of five kills", "jobs", lower_is_better=True),
        Figure("kill_doubled", "done twice, after five kills", "jobs", lower_is_better=True),
        Figure("kill_recovery", "last kill to last job", "s", lower_is_better=True, decimals=1),
    )
}


@dataclass(frozen=True)
class Sample:
    """One measured value of one system."""

    figure: str
    system: str
    value: float
    remark: str = ""


@dataclass(frozen=True)
class Spread:
    """The median of some rounds, and between what they were."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> "Spread | None":
        """Of nothing there is none.

        >>> Spread.of([3, 1, 2])
        Spread(median=2, low=1, high=3)
        """
        some = list(values)
        return cls(statistics.median(some), min(some), max(some)) if some else None


@dataclass
class Results:
    """All values by figure, system and round, and why others are missing."""

    values: dict[str, dict[str, dict[int, float]]] = field(default_factory=dict)
    remarks: dict[str, dict[str, str]] = field(default_factory=dict)

    def add(self, number: int, sample: Sample) -> None:
        """Keep what was measured in a round."""
        self.values.setdefault(sample.figure, {}).setdefault(sample.system, {})[number] = sample.value
        if sample.remark:
            self.remark(sample.figure, sample.system, sample.remark)

    def remark(self, figure: str, system: str, text: str) -> None:
        """Keep what is to be said of a system, such as why there is no value."""
        self.remarks.setdefault(figure, {})[system] = text

    @property
    def figures(self) -> list[str]:
        """What was measured, or should have been."""
        return [key for key in FIGURES if key in self.values or key in self.remarks]

    def systems(self, figure: str) -> list[str]:
        """Whom it was measured of, or should have been."""
        return list(dict.fromkeys([*self.values.get(figure, {}), *self.remarks.get(figure, {})]))

    def spread(self, figure: str, system: str) -> Spread | None:
        """What a system reached."""
        return Spread.of(self.values.get(figure, {}).get(system, {}).values())

    def ratio(self, figure: str, system: str, other: str) -> Spread | None:
        """A system's values, each divided by the other's of the same round: what slows the machine slows both."""
        ours, theirs = (self.values.get(figure, {}).get(name, {}) for name in (system, other))
        return Spread.of(value / theirs[number] for number, value in ours.items() if theirs.get(number))

    def best(self, figure: str, systems: Iterable[str]) -> str | None:
        """Who of these has the best median; None when none has any."""
        medians = {name: spread.median for name in systems if (spread := self.spread(figure, name)) is not None}
        choose = min if FIGURES[figure].lower_is_better else max
        return choose(medians, key=lambda name: medians[name]) if medians else None

    def as_json(self) -> dict[str, Any]:
        """For programs: by figure and system, the values in the order of the rounds, the median and any remark."""
        return {
            figure: {
                "unit": FIGURES[figure].unit,
                "systems": {system: self._as_json(figure, system) for system in self.systems(figure)},
            }
            for figure in self.figures
        }

    def _as_json(self, figure: str, system: str) -> dict[str, Any]:
        spread = self.spread(figure, system)
        return {
            "median": None if spread is None else spread.median,
            "values": [value for _, value in sorted(self.values.get(figure, {}).get(system, {}).items())],
            "remark": self.remarks.get(figure, {}).get(system),
        }

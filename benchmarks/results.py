"""Measured values, their medians, and ratios between systems."""

import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any


class NotMeasured(Exception):
    """A system has no value; the text is the reason."""


@dataclass(frozen=True)
class Metric:
    """A quantity that is measured of several systems."""

    key: str
    unit: str
    title: str = ""
    """What sets it apart from the other metrics of its scenario."""
    lower_is_better: bool = False
    compared: bool = True
    """Whether reports show each system's ratio to the best one."""
    decimals: int = 0
    limit: float | None = None
    """A value this high means that the event did not happen in time."""

    @property
    def heading(self) -> str:
        """The heading of a table's column."""
        return f"{self.title}, {self.unit}" if self.title else self.unit

    def format(self, value: float) -> str:
        """A value without its unit.

        >>> Metric("recovery", "s", decimals=1, limit=100).format(8.04)
        '8.0'
        """
        if self.limit is not None and value >= self.limit:
            return f"not within {self.limit:g} {self.unit}"
        return f"{value:,.{self.decimals}f}"


@dataclass(frozen=True)
class Sample:
    """One measured value."""

    value: float
    note: str = ""


@dataclass(frozen=True)
class Summary:
    """The median, the lowest and the highest of several values."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> "Summary | None":
        """None without any value.

        >>> Summary.of([3, 1, 2])
        Summary(median=2, low=1, high=3)
        """
        found = list(values)
        return cls(statistics.median(found), min(found), max(found)) if found else None


@dataclass
class Results:
    """The values of each metric, system and round, and notes, such as why a value is missing."""

    values: dict[Metric, dict[str, dict[int, float]]] = field(default_factory=dict)
    notes: dict[Metric, dict[str, str]] = field(default_factory=dict)

    def add(self, metric: Metric, system: str, round_number: int, sample: Sample) -> None:
        """Record the value of one round."""
        self.values.setdefault(metric, {}).setdefault(system, {})[round_number] = sample.value
        if sample.note:
            self.add_note(metric, system, sample.note)

    def add_note(self, metric: Metric, system: str, note: str) -> None:
        """Record a note, in place of an earlier one."""
        self.notes.setdefault(metric, {})[system] = note

    def note(self, metric: Metric, system: str) -> str:
        """The note of a system, or an empty text."""
        return self.notes.get(metric, {}).get(system, "")

    def systems(self, metric: Metric) -> list[str]:
        """The systems with a value or a note."""
        return list(dict.fromkeys([*self.values.get(metric, {}), *self.notes.get(metric, {})]))

    def summary(self, metric: Metric, system: str) -> Summary | None:
        """The summary of a system's rounds."""
        return Summary.of(self.values.get(metric, {}).get(system, {}).values())

    def ratio(self, metric: Metric, system: str, reference: str) -> float | None:
        """The median of the ratios to another system within each round: what slows the machine slows both."""
        values, references = (self.values.get(metric, {}).get(name, {}) for name in (system, reference))
        ratios = Summary.of(value / references[number] for number, value in values.items() if references.get(number))
        return None if ratios is None else ratios.median

    def best(self, metric: Metric) -> str | None:
        """The system with the best median."""
        found = {system: summary for system in self.systems(metric) if (summary := self.summary(metric, system))}
        choose = min if metric.lower_is_better else max
        return choose(found, key=lambda system: found[system].median) if found else None

    def to_json(self) -> dict[str, Any]:
        """For each metric and system, the values in the order of the rounds, their median and the note."""

        def system_to_json(metric: Metric, system: str) -> dict[str, Any]:
            rounds = self.values.get(metric, {}).get(system, {})
            values = [rounds[number] for number in sorted(rounds)]
            median = statistics.median(values) if values else None
            return {"median": median, "values": values, "note": self.note(metric, system) or None}

        return {
            metric.key: {
                "unit": metric.unit,
                "systems": {system: system_to_json(metric, system) for system in self.systems(metric)},
            }
            for metric in dict.fromkeys([*self.values, *self.notes])
        }

"""What the settlements of a queue have added up: how many jobs ended in which way, how long they waited and ran.

The counts are those of the whole queue, whoever settled, since it was made: see `worker/queue/counters.py`.
"""

from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from typing import cast

from redis.asyncio import Redis

from producers import keys
from worker.queue.counters import BOUNDS_JOBS, BOUNDS_SECONDS

ENDS = ("done", "rejected", "dead")
"""The outcomes that end a job; a try can also come to `retry` or `release`."""
LONGEST_FIELD = 200
_REDELIVERED = "redelivered"


@dataclass(slots=True)
class Histogram:
    """How many values lie under each bound and not under the one before, last those above all; and their sum."""

    bounds: tuple[float, ...]
    counts: list[int] = field(default_factory=list)
    total: float = 0.0

    def __post_init__(self) -> None:
        self.counts = self.counts or [0] * (len(self.bounds) + 1)

    @property
    def count(self) -> int:
        """How many values there are."""
        return sum(self.counts)

    def add(self, number: int, count: int) -> None:
        """So many values lie under the bound of this number; a number that there is not is nobody's."""
        if 0 <= number < len(self.counts):
            self.counts[number] += count

    def since(self, before: "Histogram") -> "Histogram":
        """The values that came after an earlier state of this one."""
        counts = [max(0, now - then) for now, then in zip(self.counts, before.counts, strict=True)]
        return Histogram(self.bounds, counts, max(0.0, self.total - before.total))

    def quantile(self, part: float) -> float | None:
        """The value that this part of all lie under, as near as the bounds can tell; None when there are none.

        >>> times = Histogram((1.0, 2.0, 4.0), [10, 10, 0, 0])
        >>> times.quantile(0.5), times.quantile(0.75), Histogram((1.0,)).quantile(0.5)
        (1.0, 1.5, None)
        """
        wanted = part * self.count
        if not self.count:
            return None
        lower, passed = 0.0, 0
        for bound, count in zip(self.bounds, self.counts, strict=False):
            if count and passed + count >= wanted:
                return lower + (bound - lower) * max(0.0, wanted - passed) / count
            lower, passed = bound, passed + count
        return self.bounds[-1]


def _seconds() -> Histogram:
    return Histogram(BOUNDS_SECONDS)


@dataclass(slots=True)
class Tallies:
    """All of it. A job is named by its kind; `unknown` is what could not be read."""

    tries: dict[tuple[str, str, str], int] = field(default_factory=dict)
    """By job, what a try came to (an outcome, `retry` or `release`), and the code, empty when there is none."""
    redelivered: dict[str, int] = field(default_factory=dict)
    """By job: deliveries that found the outcome in the ledger, and ran nothing."""
    wait: dict[str, Histogram] = field(default_factory=dict)
    """By job: for how long jobs were due before a try began, in seconds."""
    run: dict[str, Histogram] = field(default_factory=dict)
    """By job: how long tries took, in seconds."""
    batches: Histogram = field(default_factory=lambda: Histogram(tuple(map(float, BOUNDS_JOBS))))
    """How many jobs shared a transaction."""
    splits: int = 0
    leases_lost: int = 0

    @property
    def ended(self) -> dict[tuple[str, str, str], int]:
        """Those of the tries that ended their jobs, likewise."""
        return {key: count for key, count in self.tries.items() if key[1] in ENDS}


async def read(redis: Redis, queue: str) -> Tallies:
    """Ask Redis, in one round trip. Raises what the client raises."""
    return parse(await cast("Awaitable[dict[bytes, bytes]]", redis.hgetall(keys.counters(queue))))


def parse(fields: Mapping[bytes, bytes]) -> Tallies:
    """The counts in a hash; what is none, which anybody may have written there, is passed over."""
    tallies = Tallies()
    for name, value in fields.items():
        words = name.decode("ascii", "replace").split(" ") if len(name) <= LONGEST_FIELD else []
        if value.isdigit():
            _add(tallies, words, int(value[:18]))
    return tallies


def _add(tallies: Tallies, words: list[str], count: int) -> None:
    match words:
        case ["splits"]:
            tallies.splits += count
        case ["leases_lost"]:
            tallies.leases_lost += count
        case ["batch:jobs"]:
            tallies.batches.total += count
        case [size] if size.startswith("batch:"):
            tallies.batches.add(_number(size.removeprefix("batch:")), count)
        case [label, *rest] if 3 <= len(parts := label.split("/")) <= 4:  # noqa: PLR2004  # as `tally` makes them
            _add_tries(tallies, parts, rest, count)
        case _:
            pass


def _add_tries(tallies: Tallies, parts: list[str], rest: list[str], count: int) -> None:
    job, ended, code, *redelivered = parts
    wait, run = tallies.wait.setdefault(job, _seconds()), tallies.run.setdefault(job, _seconds())
    match rest:
        case ["wait_us"]:
            wait.total += count / 1e6
        case ["run_us"]:
            run.total += count / 1e6
        case [waited, ran]:
            wait.add(_number(waited), count)
            run.add(_number(ran), count)
            key = (job, ended, code)
            tallies.tries[key] = tallies.tries.get(key, 0) + count
            if redelivered == [_REDELIVERED]:
                tallies.redelivered[job] = tallies.redelivered.get(job, 0) + count
        case _:
            pass


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 4 else -1  # noqa: PLR2004  # of a bound

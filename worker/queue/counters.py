"""The counters of a queue: how many attempts ended in which way, how long their jobs waited and ran.

`Executor._conclude` formats what an attempt counts for, and the script that settles the job adds it in the same step
(`count` in scripts/job.lua). So the counts are exact whatever is killed, and belong to the queue, not to a process.
At each scrape `worker.observability.http` reads them and `worker.observability.metrics` exposes them. They are the
fields of one hash:

    <label> <wait> <run>   attempts that ended so, by the index of the bound that each duration falls under
    <label> wait_us        sum of the time their jobs were due before they began
    <label> run_us         sum of the time they ran
    batch:<size>           transactions, by the index of the bound that their number of jobs falls under
    batch:jobs             sum of their jobs
    splits                 how often a batch was split
    leases_lost            leases that had ended when they were to be renewed

A label is `<job>/<outcome>/<code>`, with `/redelivered` appended when the job had its outcome already and did not run.
"""

from bisect import bisect_left
from collections.abc import Awaitable, Container, Mapping
from dataclasses import dataclass, field
from typing import cast

from redis.asyncio import Redis

from producers import keys
from worker.model.job import Attempt
from worker.model.log_context import safe_job_name
from worker.model.outcome import code_of, label

BOUNDS_SECONDS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0,
)  # fmt: skip
"""Inclusive upper bounds of the buckets for durations."""
BOUNDS_JOBS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000)
"""Inclusive upper bounds of the buckets for batch sizes."""

OUTCOMES = ("done", "rejected", "dead")
"""The results that end a job; an attempt can also end in `retry` or `release`."""

_BOUNDS_MS = tuple(bound * 1000 for bound in BOUNDS_SECONDS)
_MAX_FIELD_LENGTH = 200
_REDELIVERED = "redelivered"


def format_counts(
    attempt: Attempt,
    known_names: Container[str],
    *,
    wait_ms: float,
    run_ms: float,
    batch_size: int = 0,
    counts_batch: bool = False,
) -> str:
    """What one attempt adds to the counters, as the scripts take it.

    Args:
        attempt: what ended.
        known_names: the job types that are known here.
        wait_ms: how long the job had been due.
        run_ms: how long the attempt took.
        batch_size: how many jobs shared the transaction; 0 where batches are off.
        counts_batch: whether this attempt counts the transaction, too: one of each batch does.
    """
    name = f"{safe_job_name(attempt.job.name, known_names)}/{label(attempt.result)}/{code_of(attempt.result)}"
    if attempt.redelivered:
        name += f"/{_REDELIVERED}"
    counts = (
        f"{name} {bisect_left(_BOUNDS_MS, wait_ms)} {bisect_left(_BOUNDS_MS, run_ms)}"
        f" {round(wait_ms * 1000)} {round(run_ms * 1000)}"
    )
    if counts_batch:
        counts += f" batch:{bisect_left(BOUNDS_JOBS, batch_size)} 1"
    if batch_size:
        counts += " batch:jobs 1"
    if attempt.splits:
        counts += f" splits {attempt.splits}"
    return counts


@dataclass(slots=True)
class Histogram:
    """How many values fall into each bucket, the last without an upper bound, and their sum."""

    bounds: tuple[float, ...]
    counts: list[int] = field(default_factory=list)
    total: float = 0.0

    def __post_init__(self) -> None:
        self.counts = self.counts or [0] * (len(self.bounds) + 1)

    @property
    def count(self) -> int:
        """The number of values."""
        return sum(self.counts)

    def add(self, bucket: int, count: int) -> None:
        """Count values into a bucket; a bucket that does not exist is ignored."""
        if 0 <= bucket < len(self.counts):
            self.counts[bucket] += count

    def since(self, earlier: "Histogram") -> "Histogram":
        """The values added after an earlier state of this histogram."""
        counts = [max(0, now - then) for now, then in zip(self.counts, earlier.counts, strict=True)]
        return Histogram(self.bounds, counts, max(0.0, self.total - earlier.total))

    def quantile(self, share: float) -> float | None:
        """The value below which this share of all values lies, interpolated within its bucket; None when empty.

        >>> times = Histogram((1.0, 2.0, 4.0), [10, 10, 0, 0])
        >>> times.quantile(0.5), times.quantile(0.75), Histogram((1.0,)).quantile(0.5)
        (1.0, 1.5, None)
        """
        rank = share * self.count
        if not self.count:
            return None
        lower, passed = 0.0, 0
        for bound, count in zip(self.bounds, self.counts, strict=False):
            if count and passed + count >= rank:
                return lower + (bound - lower) * max(0.0, rank - passed) / count
            lower, passed = bound, passed + count
        return self.bounds[-1]


def _durations() -> Histogram:
    return Histogram(BOUNDS_SECONDS)


@dataclass(slots=True)
class Counters:
    """All counters of a queue since it was created. `unknown` is the job type of payloads that could not be read."""

    attempts: dict[tuple[str, str, str], int] = field(default_factory=dict)
    """By job type, result (an outcome, `retry` or `release`) and code, empty when there is none."""
    redelivered: dict[str, int] = field(default_factory=dict)
    """By job type: deliveries that found the outcome in the ledger and ran nothing."""
    wait: dict[str, Histogram] = field(default_factory=dict)
    """By job type: seconds from due to the start of an attempt."""
    run: dict[str, Histogram] = field(default_factory=dict)
    """By job type: seconds an attempt took."""
    batches: Histogram = field(default_factory=lambda: Histogram(tuple(map(float, BOUNDS_JOBS))))
    """Jobs a transaction."""
    splits: int = 0
    leases_lost: int = 0

    @property
    def ended(self) -> dict[tuple[str, str, str], int]:
        """Those attempts that ended their jobs, by the same keys."""
        return {key: count for key, count in self.attempts.items() if key[1] in OUTCOMES}


async def read_counters(redis: Redis, queue: str) -> Counters:
    """The counters of a queue, in one round trip. Raises what the client raises."""
    return parse_counters(await cast("Awaitable[dict[bytes, bytes]]", redis.hgetall(keys.counters(queue))))


def parse_counters(fields: Mapping[bytes, bytes]) -> Counters:
    """The counters in a hash. A field that is not a counter is ignored, for any client may write one."""
    counters = Counters()
    for name, value in fields.items():
        words = name.decode("ascii", "replace").split(" ") if len(name) <= _MAX_FIELD_LENGTH else []
        if value.isdigit():
            _add(counters, words, int(value[:18]))
    return counters


def _add(counters: Counters, words: list[str], count: int) -> None:
    match words:
        case ["splits"]:
            counters.splits += count
        case ["leases_lost"]:
            counters.leases_lost += count
        case ["batch:jobs"]:
            counters.batches.total += count
        case [size] if size.startswith("batch:"):
            counters.batches.add(_bucket(size.removeprefix("batch:")), count)
        case [name, *rest] if 3 <= len(parts := name.split("/")) <= 4:  # noqa: PLR2004  # as `format_counts` writes them
            _add_attempts(counters, parts, rest, count)
        case _:
            pass


def _add_attempts(counters: Counters, parts: list[str], rest: list[str], count: int) -> None:
    job, result, code, *redelivered = parts
    wait, run = counters.wait.setdefault(job, _durations()), counters.run.setdefault(job, _durations())
    match rest:
        case ["wait_us"]:
            wait.total += count / 1e6
        case ["run_us"]:
            run.total += count / 1e6
        case [waited, ran]:
            wait.add(_bucket(waited), count)
            run.add(_bucket(ran), count)
            key = (job, result, code)
            counters.attempts[key] = counters.attempts.get(key, 0) + count
            if redelivered == [_REDELIVERED]:
                counters.redelivered[job] = counters.redelivered.get(job, 0) + count
        case _:
            pass


def _bucket(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 4 else -1  # noqa: PLR2004  # digits

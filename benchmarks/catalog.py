"""What is measured: the scenarios and their metrics. docs/benchmarks.md describes them."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from benchmarks.results import Metric

RECOVERY_LIMIT_SECONDS = 100.0
"""How long a system may take after the last kill. Jobs that are not done by then count as lost or late."""


@dataclass(frozen=True)
class Scenario:
    """A load, and the metrics that are measured under it."""

    name: str
    title: str
    metrics: tuple[Metric, ...]
    one_round: bool = False


_latency = partial(Metric, unit="ms", lower_is_better=True, decimals=1)
_kill = partial(Metric, unit="jobs", lower_is_better=True, compared=False)

CREATE_USER = Scenario(
    "create_user", "create_user, from a full queue to committed rows", (Metric("create_user", "jobs/s"),)
)
MIXED = Scenario("mixed", "All six jobs, shuffled", (Metric("mixed", "jobs/s"),))
NOOP = Scenario("noop", "Jobs without an effect", (Metric("noop", "jobs/s"),))
LATENCY = Scenario(
    "latency", "Latency of an idle worker", (_latency("latency_p50", title="p50"), _latency("latency_p99", title="p99"))
)
ENQUEUE = Scenario(
    "enqueue",
    "Enqueueing create_user",
    (Metric("bulk_enqueue", "jobs/s", "bulk"), Metric("single_enqueue", "jobs/s", "single")),
)
PROCESSES = Scenario("processes", "Jobs without an effect, in several processes", (Metric("processes", "jobs/s"),))
KILLS = Scenario(
    "kills",
    "Killed workers",
    (
        _kill("kill_lost", title="lost or late"),
        _kill("kill_doubled", title="done twice"),
        _kill("kill_recovery", unit="s", title="recovery", decimals=1, limit=RECOVERY_LIMIT_SECONDS),
    ),
    one_round=True,
)

SCENARIOS: Mapping[str, Scenario] = {
    scenario.name: scenario for scenario in (CREATE_USER, MIXED, NOOP, LATENCY, ENQUEUE, PROCESSES, KILLS)
}
ALIASES: Mapping[str, str] = {"create": "create_user"}

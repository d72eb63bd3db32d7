"""What is promised of the figures, in one table, and whether it was kept."""

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks import observing
from benchmarks.results import FIGURES, Results
from benchmarks.systems import ARQ_AS_IT_COMES, BEST, NAMES, OURS, OURS_BATCH, OURS_SESSION, PEERS, USUAL, System

PGBENCH = "pgbench, the limit"
TRANSACTION_OURS, TRANSACTION_USUAL = "exactly once, with ledger and reply", "usual handler"
NONE_REFUSED, SOME_REFUSED = "none refused", "one in twenty refused"
SAQ_USUAL = f"{NAMES['saq']}, usual"
BACKLOGS = (1_000, 10_000, 100_000, 1_000_000)
PROCESSES = (1, 2, 4, 8)


def queued(jobs: int) -> str:
    """The name of a row of the backlog."""
    return f"{jobs:,} queued"


def processes(number: int) -> str:
    """The name of a row of the processes."""
    return f"{number} process{'es' if number > 1 else ''}"


@dataclass(frozen=True)
class Claim:
    """A figure of a system, or its ratio to the best of others, is at least, or at most, so much."""

    figure: str
    system: str
    bound: float
    over: tuple[str, ...] = ()
    at_least: bool = True
    others: str = ""
    """What the others are called, when they are many."""
    always: bool = False
    """In every round, and not only in the median: for what must never happen."""

    @property
    def text(self) -> str:
        """The promise in words."""
        figure = FIGURES[self.figure]
        sign = "≥" if self.at_least else "≤"
        if not self.over:
            always = ", in every round" if self.always else ""
            return f"{figure.title}: {self.system} {sign} {self.bound:,g} {figure.unit}{always}"
        return f"{figure.title}: {self.system} {sign} {self.bound:g} × {self.others or ' or '.join(self.over)}"


@dataclass(frozen=True)
class Verdict:
    """What came of a claim: `kept` is None when there is nothing to compare with."""

    claim: Claim
    kept: bool | None
    value: float | None
    rival: str | None = None
    """Whom it was compared with."""

    @property
    def found(self) -> str:
        """The figure in words."""
        if self.value is None:
            return "not measured"
        figure = FIGURES[self.claim.figure]
        if not self.claim.over:
            return f"{figure.show(self.value)} {figure.unit}"
        return f"{self.value:.2f} × {self.rival}"

    @property
    def word(self) -> str:
        """In one word."""
        return {True: "kept", False: "missed", None: "not measured"}[self.kept]


def _names(systems: Sequence[System]) -> tuple[str, ...]:
    return tuple(system.label for system in systems)


_ANY_BEST = "the best other system, handlers at their best"
_ANY_USUAL = "the best other system, usual handlers"
_SESSION, _BATCH, _OURS = OURS_SESSION.label, OURS_BATCH.label, OURS.label

CLAIMS: Sequence[Claim] = (
    Claim("create_user", _SESSION, 2, _names(USUAL), others=_ANY_USUAL),
    Claim("create_user", _SESSION, 1.5, tuple(f"{NAMES[name]}, usual" for name in ("saq", "taskiq", "streaq"))),
    Claim("create_user", _BATCH, 15, _names(USUAL), others=_ANY_USUAL),
    Claim("create_user", _BATCH, 8, _names(BEST), others=_ANY_BEST),
    Claim("create_user", _BATCH, 40, (ARQ_AS_IT_COMES.label,)),
    Claim("create_user", _BATCH, 0.9, (PGBENCH,)),
    Claim("mixed", _BATCH, 8, _names(BEST), others=_ANY_BEST),
    Claim("refused", SOME_REFUSED, 0.4, (NONE_REFUSED,)),
    Claim("noop", _OURS, 8000),
    Claim("noop", _OURS, 3, (NAMES["taskiq"],)),
    Claim("latency_p50", _OURS, 5, at_least=False),
    Claim("latency_p99", _OURS, 15, at_least=False),
    Claim("latency_p50", _OURS, 1.1, (SAQ_USUAL,), at_least=False),
    Claim("latency_p99", _OURS, 1.1, (SAQ_USUAL,), at_least=False),
    Claim("bulk_enqueue", _OURS, 40_000),
    Claim("bulk_enqueue", _OURS, 3, _names(PEERS), others="the best other system"),
    Claim("single_enqueue", _OURS, 1, _names(PEERS), others="the best other system"),
    Claim("backlog", queued(BACKLOGS[-1]), 0.8, (queued(BACKLOGS[0]),)),
    *(
        Claim("processes", processes(number), 0.85, tuple(processes(fewer) for fewer in PROCESSES[:place]))
        for place, number in enumerate(PROCESSES)
        if place
    ),
    Claim("memory", _OURS, 200, at_least=False),
    Claim("idle_cpu", _OURS, 1, at_least=False),
    *(Claim("observed", system.label, 0.95, (silent.label,)) for system, silent in observing.PAIRS),
    Claim("transaction", TRANSACTION_OURS, 1.3, (TRANSACTION_USUAL,)),
    *(
        Claim(figure, system, bound, at_least=False, always=True)
        for system in (_SESSION, _BATCH)
        # The lease and two seconds: what the dead worker held. The rest of the load is done before that.
        for figure, bound in (("kill_lost", 0), ("kill_doubled", 0), ("kill_recovery", 12))
    ),
)


def judge(claim: Claim, results: Results) -> Verdict:
    """Whether a claim was kept. One of a system of ours that gave no figure was not."""
    own = results.spread(claim.figure, claim.system)
    if own is None:
        return Verdict(claim, kept=False if claim.system in results.remarks.get(claim.figure, {}) else None, value=None)
    if not claim.over:
        value = own.median if not claim.always else own.low if claim.at_least else own.high
        return Verdict(claim, kept=_within(value, claim), value=value)
    rival = results.best(claim.figure, claim.over)
    ratio = None if rival is None else results.ratio(claim.figure, claim.system, rival)
    if ratio is None:
        return Verdict(claim, kept=None, value=None)
    return Verdict(claim, kept=_within(ratio.median, claim), value=ratio.median, rival=rival)


def verdicts(results: Results) -> list[Verdict]:
    """Of all claims whose scenarios were run."""
    return [judge(claim, results) for claim in CLAIMS if claim.figure in results.figures]


def _within(value: float, claim: Claim) -> bool:
    return value >= claim.bound if claim.at_least else value <= claim.bound

"""What a settlement adds to the counts of its queue.

The script that settles a job counts it, in the same step. So the counts are right to the job whatever is killed, and
are those of the queue, not of a process: no worker that ends takes any along. They are the fields of one hash:

    <label> <wait> <run>   tries that ended so, by the numbers of the bounds that their times lie under
    <label> wait_us        how long these had been due before they began, in all
    <label> run_us         how long they ran, in all
    batch:<size>           transactions, by the number of the bound that their jobs lie under
    batch:jobs             how many jobs these had, in all
    splits                 how often a batch was split
    leases_lost            leases that had ended when they were to be renewed

A label is `<job>/<outcome>/<code>`, with `/redelivered` behind it when the job had its outcome already and was not run.
"""

from bisect import bisect_left
from collections.abc import Container

from worker.engine.transaction import Claim
from worker.model.log_context import told_name
from worker.model.outcome import Attempt, Dead, Done, Rejected, Release, Retry

BOUNDS_SECONDS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0,
)  # fmt: skip
"""What times are told apart by; each bound is the longest time that lies under it."""
BOUNDS_JOBS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000)
"""What sizes of batches are told apart by, likewise."""

_BOUNDS_MS = tuple(bound * 1000 for bound in BOUNDS_SECONDS)


def tally(
    claim: Claim,
    attempt: Attempt,
    names: Container[str],
    *,
    wait_ms: float,
    run_ms: float,
    together: int = 0,
    heads: bool = False,
) -> str:
    """What one try counts for, as the scripts take it.

    Args:
        claim: the job that was tried.
        attempt: what it came to.
        names: the jobs that are known here.
        wait_ms: how long it had been due.
        run_ms: how long the try took.
        together: how many jobs were tried together, itself among them; 0 where each has a session of its own.
        heads: whether it is the first of them, which counts them as a batch.
    """
    label = f"{told_name(claim.job, names)}/{_ended(attempt)}"
    if claim.redelivered:
        label += "/redelivered"
    counted = (
        f"{label} {bisect_left(_BOUNDS_MS, wait_ms)} {bisect_left(_BOUNDS_MS, run_ms)}"
        f" {round(wait_ms * 1000)} {round(run_ms * 1000)}"
    )
    if heads:
        counted += f" batch:{bisect_left(BOUNDS_JOBS, together)} 1"
    if together:
        counted += " batch:jobs 1"
    if claim.splits:
        counted += f" splits {claim.splits}"
    return counted


def _ended(attempt: Attempt) -> str:
    match attempt:
        case Done():
            return "done/"
        case Rejected(code):
            return f"rejected/{code}"
        case Dead(code):
            return f"dead/{code}"
        case Retry(code):
            return f"retry/{code}"
        case Release():
            return "release/"

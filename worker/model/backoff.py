"""When a job that failed runs again."""

import random

BASE_SECONDS = 1.0
CAP_SECONDS = 60.0


def backoff_seconds(tries: int, *, base: float = BASE_SECONDS, cap: float = CAP_SECONDS) -> float:
    """How long to wait after the given number of tries: exponential, capped, with full jitter.

    Full jitter spreads the retries of jobs that failed together evenly over the whole delay
    (M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015).

    >>> all(0 <= backoff_seconds(tries) <= min(60, 2 ** (tries - 1)) for tries in range(1, 2000))
    True
    """
    # The exponent is capped too: a power of a large number of tries would not fit a float.
    longest = min(cap, base * 2.0 ** min(tries - 1, 64))
    return random.uniform(0, longest)  # noqa: S311  # jitter, not a secret

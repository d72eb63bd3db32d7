"""How long to wait before the next attempt."""

import random

BASE_SECONDS = 1.0
CAP_SECONDS = 60.0


def backoff_seconds(failures: int, *, base: float = BASE_SECONDS, cap: float = CAP_SECONDS) -> float:
    """The wait after this many failures: exponential, capped, with full jitter.

    A retried job passes the number of its attempt, a server that is down the number of its failures in a row.

    Full jitter spreads the retries of jobs that failed together evenly over the whole delay
    (M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015).

    >>> all(0 <= backoff_seconds(failures) <= min(60, 2 ** (failures - 1)) for failures in range(1, 2000))
    True
    """
    # The exponent is capped too: a power of a large number would not fit a float.
    longest = min(cap, base * 2.0 ** min(failures - 1, 64))
    return random.uniform(0, longest)  # noqa: S311  # jitter, not a secret

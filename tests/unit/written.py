"""What was logged, read back."""

import json
from collections.abc import Callable
from typing import Any

Written = Callable[[], str]
"""Reads all that was logged so far."""


def lines(written: Written) -> list[dict[str, Any]]:
    """What was logged as JSON, a line each."""
    return [json.loads(line) for line in written().splitlines()]

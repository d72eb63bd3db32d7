"""`worker` and `python -m worker`."""

import signal
import sys
from types import FrameType


def main() -> None:
    """Run the command, or say which extra is missing: the base installation holds only the producers."""
    # Until the worker listens for itself: being told to stop while it starts is no failure.
    signal.signal(signal.SIGTERM, _stop)
    try:
        from worker.cli import app  # noqa: PLC0415  # what it needs may not be installed
    except ModuleNotFoundError as error:
        if error.name in {"worker", "producers"}:
            raise
        sys.exit(f"the worker needs {error.name}, which is not installed: pip install 'userpost-worker[worker]'")
    app()


def _stop(_signal: int, _frame: FrameType | None) -> None:
    sys.exit(0)


if __name__ == "__main__":
    main()

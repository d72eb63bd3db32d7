"""`worker` and `python -m worker`."""

import signal
import sys
from types import FrameType


def main() -> None:
    """Run the command, or name the missing extra: the base installation has only the producers."""
    # Until the worker installs its own handler: a stop during the start is not a failure.
    signal.signal(signal.SIGTERM, _stop)
    try:
        from worker.cli import app  # noqa: PLC0415  # its requirements may not be installed
    except ModuleNotFoundError as error:
        if error.name in {"worker", "producers"}:
            raise
        sys.exit(f"the worker needs {error.name}, which is not installed: pip install 'userpost-worker[worker]'")
    app()


def _stop(_signal: int, _frame: FrameType | None) -> None:
    sys.exit(0)


if __name__ == "__main__":
    main()

"""`worker` and `python -m worker`."""

import sys


def main() -> None:
    """Run the command, or say which extra is missing: the base installation holds only the producers."""
    try:
        from worker.cli import app  # noqa: PLC0415  # what it needs may not be installed
    except ModuleNotFoundError as error:
        if error.name in {"worker", "producers"}:
            raise
        sys.exit(f"the worker needs {error.name}, which is not installed: pip install 'userpost-worker[worker]'")
    app()


if __name__ == "__main__":
    main()

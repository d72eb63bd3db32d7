"""Loaded by Python itself in every worker of the suite: reports on a signal what is not visible from outside.

Knows asyncio and SQLAlchemy, and nothing of the worker.
"""

import asyncio
import gc
import json
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path


def _report(*_: object) -> None:
    found = Path(os.environ["FAULTS_INSIDE"]) / f"{os.getpid()}.json"
    pool = sys.modules.get("sqlalchemy.pool")
    pools = [] if pool is None else [thing for thing in gc.get_objects() if isinstance(thing, pool.QueuePool)]
    tasks: set[asyncio.Task[object]] = set()
    with suppress(RuntimeError):  # before it runs
        tasks = asyncio.all_tasks()
    report = {"tasks": len(tasks), "checked_out": sum(each.checkedout() for each in pools)}
    found.with_suffix(".new").write_text(json.dumps(report))
    found.with_suffix(".new").rename(found)


if "FAULTS_INSIDE" in os.environ:
    signal.signal(signal.SIGUSR2, _report)

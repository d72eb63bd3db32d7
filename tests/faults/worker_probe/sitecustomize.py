"""Python loads this module in every worker of the suite. On SIGUSR2 it reports what is not visible from outside.

It knows asyncio and SQLAlchemy, and nothing of the worker.
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
    file = Path(os.environ["FAULTS_PROBE_FOLDER"]) / f"{os.getpid()}.json"
    module = sys.modules.get("sqlalchemy.pool")
    pools = [] if module is None else [each for each in gc.get_objects() if isinstance(each, module.QueuePool)]
    tasks: set[asyncio.Task[object]] = set()
    with suppress(RuntimeError):  # the loop is not running yet
        tasks = asyncio.all_tasks()
    report = {"tasks": len(tasks), "checked_out": sum(pool.checkedout() for pool in pools)}
    file.with_suffix(".new").write_text(json.dumps(report))
    file.with_suffix(".new").rename(file)


if "FAULTS_PROBE_FOLDER" in os.environ:
    signal.signal(signal.SIGUSR2, _report)

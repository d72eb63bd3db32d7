"""Workers whose clocks are hours apart."""

import importlib.util
import sys
from pathlib import Path

from tests.faults.nemesis import Nemesis
from tests.faults.stage import Stage

_LIBRARY = "vendor/libfaketime/src/libfaketime.so.1"


def fake_clock() -> Path | None:
    """The library that, preloaded, shifts a process's clock; None where there is none for this machine."""
    found = importlib.util.find_spec("libfaketime")
    if found is None or not sys.platform.startswith("linux"):
        return None
    library = Path(found.submodule_search_locations[0] if found.submodule_search_locations else "") / _LIBRARY
    return library if library.exists() else None


async def apart(stage: Stage) -> None:
    """One worker an hour ahead, one an hour behind; Redis and PostgreSQL keep the time."""
    library = fake_clock()
    if library is None:
        raise RuntimeError("libfaketime is not there: pip install libfaketime")
    workers = stage.house.workers
    for number, offset in enumerate(("+3600", "-3600")):
        workers.kill(number)
        workers.start(number, {"LD_PRELOAD": str(library), "FAKETIME": offset, "FAKETIME_DONT_FAKE_MONOTONIC": "1"})
        stage.faults += 1
    await workers.started()
    await stage.pause(1, 2)
    workers.kill(0)  # its jobs come back by Redis's clock
    await stage.restarted(0)


CLOCKS = [Nemesis(17, "clocks", apart, "workers", kills=True)]

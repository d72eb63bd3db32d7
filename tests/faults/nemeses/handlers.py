"""Handlers that block the event loop past the lease, and that do not heed their cancellation."""

from tests.faults.nemesis import Nemesis
from tests.faults.processes import SABOTAGED
from tests.faults.sabotage import BLOCKED, STUBBORN
from tests.faults.stage import Stage


async def unruly(stage: Stage) -> None:
    """One worker whose loop stands still now and then, and one whose handlers go on after they were cancelled."""
    workers = stage.house.workers
    for number, fault in enumerate((BLOCKED, STUBBORN)):
        workers.kill(number)
        workers.start(number, {fault: "1"}, command=SABOTAGED)
    await workers.started()
    await stage.pause(3, 4)
    stage.faults += 2


HANDLERS = [Nemesis(12, "unruly-handlers", unruly, "workers", settings={"WORKER_JOB_TIMEOUT_SECONDS": "2"}, kills=True)]

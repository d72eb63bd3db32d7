"""`worker run` with a built-in fault, for what no signal and no proxy can do.

Environment variables select faults. `python -m tests.faults.sabotage` patches the worker's functions and then runs the
worker, which has no hooks for this.
"""

import asyncio
import dataclasses
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from redis.asyncio import Redis
from sqlalchemy import Engine, event
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg

from producers._script import Script
from worker.__main__ import main as worker_main
from worker.database import ledger
from worker.jobs import REGISTRY
from worker.queue import scripts

KILL_AT, KILL_AFTER = "FAULTS_KILL_AT", "FAULTS_KILL_AFTER"
BLOCKING, STUBBORN, LEAKING = "FAULTS_BLOCKING", "FAULTS_STUBBORN", "FAULTS_LEAKING"
OLDER, WITHOUT = "FAULTS_OLDER", "FAULTS_WITHOUT"

STEPS = ("claimed", "begin", "ledger", "effect", "commit sent", "commit answered", "settle sent")
"""Of a job; the worker kills itself when it has reached one of them a given number of times."""

BLOCK_SECONDS = 3.0
UNRULY_EVERY = 40
MAX_UNRULY_CALLS = 2

_SETTLING = ("COMPLETE", "BURY", "RETRY", "RELEASE")


class KillSwitch:
    """Kills this process when a step has been reached often enough."""

    def __init__(self, step: str, after: int) -> None:
        self.step = step
        self._left = after

    def reach(self, step: str) -> None:
        if step == self.step:
            self._left -= 1
            if self._left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)

    def reach_after_send(self, step: str) -> None:
        """Count a step once the current data has been sent, and before the answer is read."""
        if step == self.step:
            loop = asyncio.get_running_loop()
            loop.call_soon(lambda: loop.call_soon(self.reach, step))


def install_kill_switch(switch: KillSwitch) -> None:
    """Watch the drivers of PostgreSQL and Redis."""

    def executed(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "INSERT INTO job_ledger" in statement:
            switch.reach("ledger")
        elif "users" in statement or "posts" in statement:
            switch.reach("effect")

    listen: Any = event.listen
    listen(Engine, "begin", lambda _connection: switch.reach("begin"))
    listen(Engine, "after_cursor_execute", executed)
    commit: Any = PGDialect_asyncpg.do_commit

    def do_commit(self: Any, connection: Any) -> None:
        switch.reach_after_send("commit sent")
        commit(self, connection)
        switch.reach("commit answered")

    PGDialect_asyncpg.do_commit = do_commit  # type: ignore[method-assign]
    call = Script.__call__
    settling = {id(getattr(scripts, name)) for name in _SETTLING}

    async def called(self: Script, redis: "Redis", keys: Sequence[str], args: Sequence[Any]) -> Any:
        if id(self) in settling:
            switch.reach_after_send("settle sent")
        answer = await call(self, redis, keys, args)
        if self is scripts.CLAIM and len(answer) > 1:
            switch.reach("claimed")
        return answer

    Script.__call__ = called  # type: ignore[method-assign]


def make_handlers_unruly(act: Callable[[Any], Any]) -> None:
    """Make a few calls of handlers act first."""
    calls = 0

    def wrap(handler: Any) -> Any:
        async def unruly(session: Any, message: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls % UNRULY_EVERY == 0 and calls <= UNRULY_EVERY * MAX_UNRULY_CALLS:
                await act(session)
            return await handler(session, message)

        return unruly

    for name, job in REGISTRY.items():
        set_based = None if job.set_based is None else wrap(job.set_based)
        REGISTRY[name] = dataclasses.replace(job, handler=wrap(job.handler), set_based=set_based)


async def block_event_loop(_session: Any) -> None:
    time.sleep(BLOCK_SECONDS)  # noqa: ASYNC251  # that is the fault


async def ignore_cancellation(_session: Any) -> None:
    """Continue after a cancellation."""
    until = time.monotonic() + BLOCK_SECONDS
    while (left := until - time.monotonic()) > 0:
        try:
            await asyncio.sleep(left)
        except asyncio.CancelledError:
            continue


leaked: list[Any] = []


async def leak(session: Any) -> None:
    """Keep a connection that is never returned, and tasks that never end."""
    leaked.append(await session.bind.connect())
    leaked.extend(asyncio.create_task(asyncio.sleep(3600)) for _ in range(50))


def be_older() -> None:
    """Use scripts with another text, and so with other names, as another version does."""
    _rewrite(b"local function holds(id, token)", b"-- as it was\nlocal function holds(id, token)")


def without_ledger() -> None:
    """Do not record that a job has run."""

    async def record(_session: Any, _rows: Any) -> bool:
        return True

    async def set_reply(_session: Any, _job_id: str, _reply: str) -> None:
        return

    ledger.record = ledger.record_many = record  # type: ignore[assignment]
    ledger.set_reply = set_reply  # type: ignore[assignment]


def without_tokens() -> None:
    """Settle a job that another worker has claimed in the meantime."""
    _rewrite(b"tokens[n] == ARGV[from + (n - 1) * step + 1]", b"true")


def without_order() -> None:
    """Let every job run at once."""
    _rewrite(b"local function ordering_key(id)", b"local function ordering_key(id) if true then return nil end")


def without_renewal() -> None:
    """Let leases expire while their jobs run."""
    call = Script.__call__

    async def called(self: Script, redis: "Redis", keys: Sequence[str], args: Sequence[Any]) -> Any:
        if self is scripts.RENEW:
            return [1] * (len(args) // 2)
        return await call(self, redis, keys, args)

    Script.__call__ = called  # type: ignore[method-assign]


MUTATIONS: dict[str, Callable[[], None]] = {
    "ledger": without_ledger,
    "token": without_tokens,
    "order": without_order,
    "renewal": without_renewal,
}


def _rewrite(old: bytes, new: bytes) -> None:
    for name in dir(scripts):
        script = getattr(scripts, name)
        if isinstance(script, Script):
            assert old in script._source, f"{name} has no {old!r}: the mutation must follow the scripts"
            script.__init__(script._source.replace(old, new))  # type: ignore[misc]  # the same object, another text


def main() -> None:
    """Install the selected faults and run the worker."""
    if step := os.environ.get(KILL_AT):
        install_kill_switch(KillSwitch(step, int(os.environ[KILL_AFTER])))
    for name, act in ((BLOCKING, block_event_loop), (STUBBORN, ignore_cancellation), (LEAKING, leak)):
        if os.environ.get(name):
            make_handlers_unruly(act)
    if os.environ.get(OLDER):
        be_older()
    if mutation := os.environ.get(WITHOUT):
        MUTATIONS[mutation]()
    sys.argv = ["worker", "run"]
    worker_main()


if __name__ == "__main__":
    main()

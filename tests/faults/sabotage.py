"""`worker run` with a fault built in from outside, for what no signal and no proxy can do.

The environment names the fault: `python -m tests.faults.sabotage` patches the worker's functions and then runs it. The
worker itself has no hook for any of this.
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
BLOCKED, STUBBORN, HOARDING = "FAULTS_BLOCKED", "FAULTS_STUBBORN", "FAULTS_HOARDING"
WITHOUT = "FAULTS_WITHOUT"
OLDER = "FAULTS_OLDER"

STEPS = ("claimed", "begin", "ledger", "effect", "commit sent", "commit answered", "settle sent")
"""Of a job's road; the worker kills itself when it comes by for the given time."""

BLOCK_SECONDS = 3.0
EVERY = 40
MOST = 2
"""Every so many handlers misbehave, and in all no more than that."""

_SETTLING = {"COMPLETE", "BURY", "RETRY", "RELEASE"}


class Mine:
    """Kills this process when one step has been come by often enough."""

    def __init__(self, step: str, after: int) -> None:
        self.step = step
        self._left = after

    def pass_by(self, step: str) -> None:
        """A job has come to a step."""
        if step == self.step:
            self._left -= 1
            if self._left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)

    def pass_by_soon(self, step: str) -> None:
        """A job comes to a step when what is sent now has left this process, and before its answer is read."""
        if step == self.step:
            loop = asyncio.get_running_loop()
            loop.call_soon(lambda: loop.call_soon(self.pass_by, step))


def lay(mine: Mine) -> None:
    """Watch what goes to PostgreSQL and to Redis, by the drivers' own ends."""

    def executed(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "INSERT INTO job_ledger" in statement:
            mine.pass_by("ledger")
        elif "users" in statement or "posts" in statement:
            mine.pass_by("effect")

    listen: Any = event.listen
    listen(Engine, "begin", lambda _connection: mine.pass_by("begin"))
    listen(Engine, "after_cursor_execute", executed)
    commit: Any = PGDialect_asyncpg.do_commit

    def do_commit(self: Any, connection: Any) -> None:
        mine.pass_by_soon("commit sent")
        commit(self, connection)
        mine.pass_by("commit answered")

    PGDialect_asyncpg.do_commit = do_commit  # type: ignore[method-assign]
    call = Script.__call__
    settling = {id(getattr(scripts, name)) for name in _SETTLING}

    async def called(self: Script, redis: "Redis", keys: Sequence[str], args: Sequence[Any]) -> Any:
        if id(self) in settling:
            mine.pass_by_soon("settle sent")
        answer = await call(self, redis, keys, args)
        if self is scripts.CLAIM and len(answer) > 1:
            mine.pass_by("claimed")
        return answer

    Script.__call__ = called  # type: ignore[method-assign]


def misbehave(how: Callable[[Any], Any]) -> None:
    """Let some handlers do something else first."""
    calls = 0

    def wrap(handler: Any) -> Any:
        async def unruly(session: Any, message: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls % EVERY == 0 and calls <= EVERY * MOST:
                await how(session)
            return await handler(session, message)

        return unruly

    for name, job in REGISTRY.items():
        set_based = None if job.set_based is None else wrap(job.set_based)
        REGISTRY[name] = dataclasses.replace(job, handler=wrap(job.handler), set_based=set_based)


async def block(_session: Any) -> None:
    """Hold the whole event loop up."""
    time.sleep(BLOCK_SECONDS)  # noqa: ASYNC251  # that is the fault


async def be_stubborn(_session: Any) -> None:
    """Go on after having been cancelled."""
    until = time.monotonic() + BLOCK_SECONDS
    while (left := until - time.monotonic()) > 0:
        try:
            await asyncio.sleep(left)
        except asyncio.CancelledError:
            continue


hoard: list[Any] = []


async def hold_on(session: Any) -> None:
    """Keep a connection that is never given back, and tasks that never end."""
    hoard.append(await session.bind.connect())
    hoard.extend(asyncio.create_task(asyncio.sleep(3600)) for _ in range(50))


def be_older() -> None:
    """Have scripts of other texts, and so of other names: those of another version, which do the same."""
    _rewrite(b"local function holds(id, token)", b"-- as it was\nlocal function holds(id, token)")


def without_ledger() -> None:
    """Nothing remembers that a job has run."""

    async def enter(_session: Any, _entry: Any) -> bool:
        return True

    async def enter_many(_session: Any, _entries: Any) -> bool:
        return True

    async def set_reply(_session: Any, _job_id: str, _reply: str) -> None:
        return

    ledger.record = enter  # type: ignore[assignment]
    ledger.record_many = enter_many  # type: ignore[assignment]
    ledger.set_reply = set_reply  # type: ignore[assignment]


def without_tokens() -> None:
    """A worker settles what it once had claimed, whoever has it now."""
    _rewrite(b"tokens[n] == ARGV[from + (n - 1) * step + 1]", b"true")


def without_order() -> None:
    """Every job has its turn."""
    _rewrite(b"local function ordering_key(id)", b"local function ordering_key(id) if true then return nil end")


def without_renewal() -> None:
    """Leases end while their jobs run."""
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
            assert old in script._source, f"{name} has no {old!r}: the mutation has to follow the scripts"
            script.__init__(script._source.replace(old, new))  # type: ignore[misc]  # the same object, another text


def main() -> None:
    """Build the fault in, and run the worker."""
    if step := os.environ.get(KILL_AT):
        lay(Mine(step, int(os.environ[KILL_AFTER])))
    if os.environ.get(BLOCKED):
        misbehave(block)
    if os.environ.get(STUBBORN):
        misbehave(be_stubborn)
    if os.environ.get(HOARDING):
        misbehave(hold_on)
    if os.environ.get(OLDER):
        be_older()
    if mutation := os.environ.get(WITHOUT):
        MUTATIONS[mutation]()
    sys.argv = ["worker", "run"]
    worker_main()


if __name__ == "__main__":
    main()

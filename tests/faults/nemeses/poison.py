"""Data that should never be in Redis: the worker buries it, and the other jobs are unharmed."""

import json
import pickle
from typing import Any

from tests.faults.nemesis import Nemesis
from tests.faults.queue_state import QUEUE
from tests.faults.scenario import Scenario

DEPTH = 50_000
HUGE_BYTES = 64 * 1024 * 1024


def _payload(**fields: Any) -> bytes:
    envelope: dict[str, Any] = {"f": "create_user", "k": {}, "a": [], "t": None, "et": 1_700_000_000_000}
    return json.dumps(envelope | fields).encode()


PAYLOADS: dict[bytes, bytes] = {
    b"poison-empty": b"",
    b"poison-garbage": bytes(range(256)),
    b"poison-pickle": pickle.dumps({"t": None, "f": "create_user", "a": (), "k": {}, "et": 0}),
    b"poison-list": b"[1, 2, 3]",
    b"poison-number": b"1e400",
    b"poison-unknown": _payload(f="format_disk"),
    b"poison-positional": _payload(a=["x"]),
    b"poison-types": _payload(f="delete_user", k={"user_id": "seven"}),
    b"poison-nul": _payload(f="create_post", k={"author_id": 1, "title": "a\x00b", "content": ""}),
    b"poison-surrogate": _payload(f="create_post", k={"author_id": 1, "title": "\ud800", "content": ""}),
    b"poison-deep": b'{"f":"create_user","k":' + b'{"a":' * DEPTH + b"1" + b"}" * DEPTH + b',"a":[],"t":null,"et":1}',
    b"poison-time": _payload(et=10**30),
    b"poison-large-id": _payload(f="delete_user", k={"user_id": 2**70}),
    b"poison\xff\xfe": _payload(f="delete_user", k={"user_id": 1}),
    b"poison with spaces @": _payload(f="delete_user", k={"user_id": 1}),
    b"poison-" + b"x" * 300: _payload(f="delete_user", k={"user_id": 1}),
    b"poison-keyed@user:0": b"\x80\x04garbage",
}
SCORES: dict[bytes, str] = {b"poison-garbage": "-inf", b"poison-list": "-1e300", b"poison-nul": "0"}


async def poison(scenario: Scenario) -> None:
    """All of it at once, among other jobs. It must leave the queue, and unreadable payloads must be kept unchanged."""
    redis = scenario.cluster.redis
    await scenario.pause(0.1, 0.3)
    payloads = dict(PAYLOADS)
    if scenario.is_long and not scenario.faults:
        payloads[b"poison-huge"] = b"x" * HUGE_BYTES
    for job_id, payload in payloads.items():
        await redis.set(b"arq:job:" + job_id, payload)
        await redis.execute_command("ZADD", QUEUE, SCORES.get(job_id, "1"), job_id)
    # Keys of the wrong type: a payload, a lease, a number of attempts.
    await redis.lpush("arq:job:poison-list-key", "x")
    await redis.execute_command("ZADD", QUEUE, "1", "poison-list-key", "1", "poison-without-payload")
    await redis.set("arq:job:poison-lease", b"{}")
    await redis.hset("arq:in-progress:poison-lease", "a", "b")
    await redis.hset("arq:retry:poison-lease", "a", "b")
    await redis.execute_command("ZADD", QUEUE, "1", "poison-lease")
    names = [*payloads, b"poison-list-key", b"poison-without-payload", b"poison-lease"]
    scenario.faults += len(names)
    await scenario.wait_left_queue(names)
    for job_id in names:
        if not await redis.exists(b"arq:result:" + job_id):
            scenario.violations.append(("I1", f"no outcome: {job_id[:40]!r}"))
        await redis.delete(b"arq:result:" + job_id)
    for job_id in (b"poison-garbage", b"poison-deep", b"poison\xff\xfe"):
        if await redis.get(b"arq:dead:" + job_id) != payloads[job_id]:
            scenario.violations.append(("P7", f"payload was changed: {job_id!r}"))


POISON = [Nemesis(13, "poison", poison, "jobs")]

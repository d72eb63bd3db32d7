"""Redis and PostgreSQL that crash, are down for a while, or hold locks."""

import asyncio
from contextlib import suppress

import asyncpg  # type: ignore[import-untyped]
from redis.exceptions import RedisError

from tests.faults.nemesis import Nemesis
from tests.faults.scenario import Scenario

TERMINATE = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'worker'"


async def redis_killed(scenario: Scenario) -> None:
    """SIGKILL and a restart from the append-only file; then the scripts are flushed and the clients disconnected."""
    cluster = scenario.cluster
    for _ in range(2):
        await scenario.pause(0.2, 0.6)
        await asyncio.to_thread(cluster.valkey.kill)
        await scenario.pause(0, 0.5)
        await asyncio.to_thread(cluster.valkey.start)
        await scenario.pause(0.2, 0.4)
        await cluster.redis.script_flush()
        await scenario.pause(0.1, 0.2)
        with suppress(RedisError):
            await cluster.redis.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        scenario.faults += 3


async def redis_down(scenario: Scenario) -> None:
    """A long outage."""
    await scenario.pause(0.2, 0.5)
    await asyncio.to_thread(scenario.cluster.valkey.stop)
    await scenario.wait_outage()
    await asyncio.to_thread(scenario.cluster.valkey.start)
    scenario.faults += 1


async def database_crashed(scenario: Scenario) -> None:
    """An immediate shutdown during commits; later all back ends are terminated, several times."""
    cluster = scenario.cluster
    await scenario.pause(0.2, 0.6)
    await asyncio.to_thread(cluster.postgres.stop, "immediate")
    await scenario.pause(0, 0.5)
    await asyncio.to_thread(cluster.postgres.start)
    for _ in range(6):
        await scenario.pause(0.05, 0.2)
        await cluster.query(lambda database: database.execute(TERMINATE))
    scenario.faults += 7


async def database_down(scenario: Scenario) -> None:
    """A long outage."""
    await scenario.pause(0.2, 0.5)
    await asyncio.to_thread(scenario.cluster.postgres.stop)
    await scenario.wait_outage()
    await asyncio.to_thread(scenario.cluster.postgres.start)
    scenario.faults += 1


async def locks(scenario: Scenario) -> None:
    """Rows locked by another client, and deadlocks: a post and then its author, against the deletion of the author."""
    for _ in range(2):
        async with scenario.hold_rows():
            await scenario.pause(0.5, 1.5)
        scenario.faults += 1
        await scenario.cluster.query(lambda database: _deadlock(scenario, database))


async def _deadlock(scenario: Scenario, database: asyncpg.Connection) -> None:
    # The deletion of a user waits for a post that is locked here, while this transaction waits for the user.
    # The user is new: any user of the load may be deleted already.
    (user,) = await scenario.replies(await scenario.client.enqueue([scenario.load.create_user()]))
    user_id = user["id"]
    (post,) = await scenario.replies(await scenario.client.enqueue([scenario.load.create_post(user_id)]))
    with suppress(asyncpg.DeadlockDetectedError):
        async with database.transaction():
            await database.execute("SELECT 1 FROM posts WHERE id = $1 FOR UPDATE", post["id"])
            await scenario.client.enqueue([scenario.load.delete_user(user_id)])
            await scenario.wait_blocked()
            await database.execute("SELECT 1 FROM users WHERE id = $1 FOR UPDATE", user_id)
    scenario.faults += 1


SERVERS = [
    Nemesis(7, "redis-killed", redis_killed, "redis"),
    Nemesis(8, "redis-down", redis_down, "redis", batches=False, once=True, idle=True),
    Nemesis(9, "database-crashed", database_crashed, "database", costs_no_attempt=True),
    Nemesis(10, "database-down", database_down, "database", costs_no_attempt=True, once=True, idle=True),
    Nemesis(11, "locks", locks, "database", settings={"WORKER_CONCURRENCY": "1"}, kills_jobs=True),
]

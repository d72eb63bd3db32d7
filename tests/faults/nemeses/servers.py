"""Redis and PostgreSQL that die, go away for a while, forget, or hold on to what others need."""

import asyncio
from contextlib import suppress

import asyncpg  # type: ignore[import-untyped]
from redis.exceptions import RedisError

from tests.faults.nemesis import Nemesis
from tests.faults.stage import Stage

TERMINATE = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'worker'"


async def redis_killed(stage: Stage) -> None:
    """SIGKILL and a restart from the append-only file; scripts forgotten; clients thrown out."""
    house = stage.house
    for _ in range(2):
        await stage.pause(0.2, 0.6)
        await asyncio.to_thread(house.valkey.kill)
        await stage.pause(0, 0.5)
        await asyncio.to_thread(house.valkey.start)
        await stage.pause(0.2, 0.4)
        await house.redis.script_flush()
        await stage.pause(0.1, 0.2)
        with suppress(RedisError):
            await house.redis.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        stage.faults += 3


async def redis_away(stage: Stage) -> None:
    """Stopped, and started much later."""
    await stage.pause(0.2, 0.5)
    await asyncio.to_thread(stage.house.valkey.stop)
    await stage.away()
    await asyncio.to_thread(stage.house.valkey.start)
    stage.faults += 1


async def database_crashed(stage: Stage) -> None:
    """Stopped at once under a storm of commits; all its back ends terminated in a loop."""
    house = stage.house
    await stage.pause(0.2, 0.6)
    await asyncio.to_thread(house.postgres.stop, "immediate")
    await stage.pause(0, 0.5)
    await asyncio.to_thread(house.postgres.start)
    for _ in range(6):
        await stage.pause(0.05, 0.2)
        await house.observe(lambda database: database.execute(TERMINATE))
    stage.faults += 7


async def database_away(stage: Stage) -> None:
    """Stopped, and started much later."""
    await stage.pause(0.2, 0.5)
    await asyncio.to_thread(stage.house.postgres.stop)
    await stage.away()
    await asyncio.to_thread(stage.house.postgres.start)
    stage.faults += 1


async def locks(stage: Stage) -> None:
    """Rows held by another client, and deadlocks: a post and then its author, against the deletion of an author."""
    for _ in range(2):
        async with stage.rows_held():
            await stage.pause(0.5, 1.5)
        stage.faults += 1
        await stage.house.observe(lambda database: _opposed(stage, database))


async def _opposed(stage: Stage, database: asyncpg.Connection) -> None:
    # A user whose deletion waits for a post that is held here, while this waits for the user. No other user: those that
    # the load knows may be gone.
    (user,) = await stage.replies(await stage.client.enqueue([stage.load.new_user()]))
    user_id = user["id"]
    (post,) = await stage.replies(await stage.client.enqueue([stage.load.new_post(user_id)]))
    with suppress(asyncpg.DeadlockDetectedError):
        async with database.transaction():
            await database.execute("SELECT 1 FROM posts WHERE id = $1 FOR UPDATE", post["id"])
            await stage.client.enqueue([stage.load.drop_user(user_id)])
            await stage.until_blocked()
            await database.execute("SELECT 1 FROM users WHERE id = $1 FOR UPDATE", user_id)
    stage.faults += 1


SERVERS = [
    Nemesis(7, "redis-killed", redis_killed, "redis"),
    Nemesis(8, "redis-away", redis_away, "redis", batches=False, once=True, idle=True),
    Nemesis(9, "database-crashed", database_crashed, "database", counts_no_try=True),
    Nemesis(10, "database-away", database_away, "database", counts_no_try=True, once=True, idle=True),
    Nemesis(11, "locks", locks, "database", settings={"WORKER_CONCURRENCY": "1"}, kills=True),
]

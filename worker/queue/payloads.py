"""Payloads read many at once and within bounds, for those that are only looked into."""

from collections.abc import Sequence

from redis.asyncio import Redis

from worker.queue.dead_letters import Payload


async def read(redis: Redis, payload_keys: Sequence[bytes], max_bytes: int) -> list[Payload | None]:
    """What these keys hold, in one round trip; None where there is none, and no data where there is too much."""
    async with redis.pipeline(transaction=False) as pipeline:
        for key in payload_keys:
            pipeline.type(key)
            pipeline.strlen(key)
            pipeline.getrange(key, 0, max_bytes - 1)
        answers = await pipeline.execute(raise_on_error=False)
    threes = zip(answers[::3], answers[1::3], answers[2::3], strict=True)
    return [payload(kind, size, data, max_bytes) for kind, size, data in threes]


def payload(kind: bytes, size: object, data: object, max_bytes: int) -> Payload | None:
    """What three answers say: of TYPE, of STRLEN and of GETRANGE. A key of another type answers with errors."""
    if kind == b"none":
        return None
    if not isinstance(size, int):
        return Payload(kind.decode("ascii", "replace"), None, None)
    return Payload("string", size, data if size <= max_bytes and isinstance(data, bytes) else None)

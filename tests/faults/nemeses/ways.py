"""The network between the workers, the client and the servers."""

import asyncio

from tests.faults.nemesis import Nemesis
from tests.faults.stage import Stage

LONG_SILENCE = 12.0
"""Longer than any server is waited for: whoever has such a connection has to find out by himself."""


async def cut(stage: Stage) -> None:
    """Connections are reset: all at once, within a request, within a reply, or refused for a moment."""
    for _ in range(12):
        await stage.pause(0.05, 0.3)
        proxy = stage.chance.choice(stage.house.proxies)
        match stage.chance.choice(("all", "request", "reply", "refuse")):
            case "all":
                proxy.cut()
            case "request":
                proxy.cut("request")
            case "reply":
                proxy.cut("reply")
            case _:
                proxy.refuse()
                proxy.cut()
                await stage.pause(0.1, 0.4)
                await proxy.heal()
        stage.faults += 1


async def crawl(stage: Stage) -> None:
    """Half-open connections, replies that take up to five seconds, data that comes byte by byte."""
    silence = (LONG_SILENCE, LONG_SILENCE + 1) if stage.long and not stage.faults else (0.3, 1.0)
    for _ in range(2):
        for way in ("late", "bytes", "half-open"):
            await stage.pause(0.1, 0.3)
            proxy = stage.chance.choice(stage.house.proxies)
            match way:
                case "late":
                    proxy.longest_delay_seconds = stage.chance.choice((0.05, 0.5, 5.0))
                case "bytes":
                    proxy.bytewise = True
                case _:
                    proxy.silent = True
            await stage.pause(*(silence if way == "half-open" else (0.3, 3.0 if stage.long else 1.0)))
            await proxy.heal()
            stage.faults += 1


async def lose_replies(stage: Stage) -> None:
    """Enqueues whose answers are lost, repeated by the client until they are answered."""
    client = stage.client
    for _ in range(2):
        await stage.pause(0.1, 0.3)
        stage.house.client_proxy.replies_lost = True
        # The client tries for as long as it does by itself, and then does not know.
        await client.enqueue(stage.load.draw(20))
        if not any(one.state == "unknown" for one in client.history):
            stage.complaints.append(("suite", "no enqueue was left without an answer"))
        await stage.house.client_proxy.heal()
        stage.faults += 1
        async with asyncio.timeout(20):
            while unsure := [asked for asked in client.history if asked.state == "unknown"]:
                await client.repeat(unsure)


WAYS = [
    Nemesis(5, "reset", cut, "ways"),
    Nemesis(6, "half-open", crawl, "ways", kills=True),
    Nemesis(18, "lost-replies", lose_replies, "ways", counts_no_try=True),
]

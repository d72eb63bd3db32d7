"""The network between the workers, the client and the servers."""

import asyncio

from tests.faults.nemesis import Nemesis
from tests.faults.scenario import Scenario

LONG_SILENCE_SECONDS = 12.0
"""Longer than any timeout for a server: each side has to notice a dead connection by itself."""


async def reset(scenario: Scenario) -> None:
    """Connections are reset: all at once, within a request, within a reply, or refused for a moment."""
    for _ in range(12):
        await scenario.pause(0.05, 0.3)
        proxy = scenario.random.choice(scenario.cluster.proxies)
        match scenario.random.choice(("all", "request", "reply", "refuse")):
            case "all":
                proxy.cut()
            case "request":
                proxy.cut("request")
            case "reply":
                proxy.cut("reply")
            case _:
                proxy.refuse()
                proxy.cut()
                await scenario.pause(0.1, 0.4)
                await proxy.heal()
        scenario.faults += 1


async def delay(scenario: Scenario) -> None:
    """Half-open connections, replies delayed by up to five seconds, data that arrives byte by byte."""
    first_of_long = scenario.is_long and not scenario.faults
    silence = (LONG_SILENCE_SECONDS, LONG_SILENCE_SECONDS + 1) if first_of_long else (0.3, 1.0)
    for _ in range(2):
        for fault in ("late", "bytewise", "half-open"):
            await scenario.pause(0.1, 0.3)
            proxy = scenario.random.choice(scenario.cluster.proxies)
            match fault:
                case "late":
                    proxy.longest_delay_seconds = scenario.random.choice((0.05, 0.5, 5.0))
                case "bytewise":
                    proxy.is_bytewise = True
                case _:
                    proxy.is_silent = True
            await scenario.pause(*(silence if fault == "half-open" else (0.3, 3.0 if scenario.is_long else 1.0)))
            await proxy.heal()
            scenario.faults += 1


async def lose_replies(scenario: Scenario) -> None:
    """The answers to enqueues are lost; the client repeats the calls until it has an answer."""
    client = scenario.client
    for _ in range(2):
        await scenario.pause(0.1, 0.3)
        scenario.cluster.client_proxy.loses_replies = True
        # The producer retries until its timeout, and then reports the acceptance as unknown.
        await client.enqueue(scenario.load.draw(20))
        if not any(job.state == "unknown" for job in client.history):
            scenario.violations.append(("suite", "every enqueue was answered"))
        await scenario.cluster.client_proxy.heal()
        scenario.faults += 1
        async with asyncio.timeout(20):
            while unknown := [job for job in client.history if job.state == "unknown"]:
                await client.repeat(unknown)


NETWORK = [
    Nemesis(5, "reset", reset, "network"),
    Nemesis(6, "half-open", delay, "network", kills_jobs=True),
    Nemesis(18, "lost-replies", lose_replies, "network", costs_no_attempt=True),
]

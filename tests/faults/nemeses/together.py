"""Several nemeses at once, drawn at random."""

import asyncio
import copy
from collections.abc import Sequence

from tests.faults.nemesis import Nemesis
from tests.faults.stage import Stage


def at_random(nemeses: Sequence[Nemesis]) -> Nemesis:
    """A nemesis that lets two of these loose at a time, on different places."""

    async def strike(stage: Stage) -> None:
        for _ in range(2):
            first = stage.chance.choice(nemeses)
            second = stage.chance.choice([nemesis for nemesis in nemeses if nemesis.place != first.place])
            stage.notes.append(f"{first.name} and {second.name} at once")
            await asyncio.gather(*(_loose(stage, nemesis) for nemesis in (first, second)))
            await stage.house.heal()
            await stage.whole()

    return Nemesis(0, "random", strike, "workers", kills=True)


async def _loose(stage: Stage, nemesis: Nemesis) -> None:
    # In its short form, and without its own complaints: what one does the other may undo.
    inner = copy.copy(stage)
    inner.seconds, inner.faults, inner.complaints = 0, 0, []
    try:
        await nemesis.strike(inner)
    except Exception as error:  # noqa: BLE001  # a server that one needs to strike, the other may have stopped
        stage.notes.append(f"{nemesis.name} broke off: {type(error).__name__}")
    finally:
        stage.faults += inner.faults

"""`python -m tests.browser.pictures [FOLDER]`: takes screenshots of the dashboard for the docs.

Real servers and two real workers run a varying load of jobs, some of which die. After two minutes, when the charts are
full, a browser takes the pictures.
"""

import asyncio
import itertools
import math
import random
import sys
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Literal

import asyncpg  # type: ignore[import-untyped]
from playwright.async_api import Page

from producers import Producer, UpdateUser, UserChanges
from tests.acceptance.commands import WORKER, Running
from tests.browser import chromium
from tests.browser.serving import served
from tests.integration.running import MEND, environment, run_all, settings_of, user
from worker.dashboard.security import Access
from worker.database.session import create_engine
from worker.database.startup import create_tables
from worker.embedded import PostgresServer, ValkeyServer
from worker.settings import Settings

WARM_SECONDS = 20
SECONDS = 122
TURN_SECONDS = 0.25
HOT_USERS = 4
# Creating users with some names fails, and with others it takes long.
BREAK = """
CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'broken'; END $$;
CREATE TRIGGER fail BEFORE INSERT ON users FOR EACH ROW WHEN (NEW.username LIKE 'broken%') EXECUTE FUNCTION fail();
CREATE FUNCTION rest() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(random() * 4); RETURN NEW; END $$;
CREATE TRIGGER rest BEFORE INSERT ON users FOR EACH ROW WHEN (NEW.username LIKE 'slow%') EXECUTE FUNCTION rest();
CREATE TRIGGER rest_too BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION rest()
"""
WIDTH = 1280


async def load(producer: Producer) -> None:
    """Enqueue jobs at a varying rate until cancelled."""
    chance = random.Random(7)  # noqa: S311  # for pictures
    for turn in itertools.count():
        rate = 14 + 7 * math.sin(turn / 45) + 4 * math.sin(turn / 11) + chance.random() * 3
        names = [f"user{turn}-{number}" for number in range(round(rate))]
        names += [f"slow{turn}"] * (chance.random() < 0.3) + ["taken"] * (chance.random() < 0.5)
        for name in names:
            await producer.enqueue(user(name))
        if turn % 5 == 0:
            changes = UserChanges(is_active=turn % 2 == 0)
            await producer.enqueue(UpdateUser(user_id=1 + turn // 5 % HOT_USERS, changes=changes))
        if turn % 40 == 0:
            await producer.enqueue(user(f"broken{turn}"))
            await producer.enqueue(user(f"later{turn}"), defer_by=3600)
        await asyncio.sleep(TURN_SECONDS)


async def picture(tab: Page, address: str, path: Path, scheme: Literal["dark", "light"], height: int) -> None:
    """Take one picture of a page."""
    await tab.emulate_media(color_scheme=scheme)
    await tab.set_viewport_size({"width": WIDTH, "height": height})
    await tab.goto(address)
    await tab.wait_for_timeout(1500)  # for the stream
    await tab.screenshot(path=path, animations="disabled")
    sys.stdout.write(f"{path}\n")


async def take(settings: Settings, folder: Path) -> None:
    """Take all pictures, after two minutes of load."""
    found = chromium.find()
    if found is None:
        sys.exit("there is no Chromium: apt-get install chromium, or set CHROMIUM to the path of one")
    connection = await asyncpg.connect(settings.database_url.get_secret_value())
    await run_all(connection.execute, BREAK)
    producer = Producer(settings.redis_url.get_secret_value())
    loading = asyncio.create_task(load(producer))
    await asyncio.sleep(WARM_SECONDS)
    async with (
        served(settings, Access(allow_actions=True), interval_seconds=1.0) as url,
        chromium.started(found) as browser,
    ):
        tab = await browser.new_page(viewport={"width": WIDTH, "height": 980}, device_scale_factor=1.5)
        await tab.goto(url)
        await asyncio.sleep(SECONDS)
        await picture(tab, url, folder / "dashboard-dark.png", "dark", 980)
        await picture(tab, url, folder / "dashboard-light.png", "light", 980)
        await picture(tab, f"{url}/dead", folder / "dashboard-dead-letters.png", "light", 860)
        letter = await tab.locator("tbody a.id").first.get_attribute("href")
        await picture(tab, f"{url}{letter}", folder / "dashboard-job.png", "dark", 850)
        await run_all(connection.execute, MEND)
    loading.cancel()
    with suppress(asyncio.CancelledError):
        await loading
    await producer.close()
    await connection.close()


def main() -> None:
    """Start the servers and workers, take the pictures, and stop everything."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/images")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="pictures-", dir="/tmp") as place:
        Path(place).chmod(0o711)
        with (
            PostgresServer(Path(place, "postgres"), settings={"fsync": "off"}) as postgres,
            ValkeyServer(Path(place, "valkey")) as valkey,
        ):
            settings = settings_of(valkey.url, postgres.create_database("pictures"), max_tries=1)
            asyncio.run(_tables(settings))
            with ExitStack() as stack:
                for _ in range(2):
                    stack.enter_context(Running([*WORKER, "run"], environment(settings) | {"WORKER_MAX_TRIES": "2"}))
                asyncio.run(take(settings, folder))


async def _tables(settings: Settings) -> None:
    engine = create_engine(settings.database_url.get_secret_value(), pool_size=1)
    await create_tables(engine)
    await engine.dispose()


if __name__ == "__main__":
    main()

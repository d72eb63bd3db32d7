"""A person uses the dashboard in a real browser, with real servers and a real worker."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from axe_playwright_python.async_playwright import Axe  # type: ignore[import-untyped]
from playwright.async_api import Page, expect

from producers import Producer, keys
from producers._redis import connect
from tests.browser.serving import served
from tests.integration.running import BREAK, MEND, burst, run_all, settings_of, user, working
from worker.dashboard.security import Access
from worker.embedded import ValkeyServer
from worker.settings import Settings

QUEUE = "arq:queue"
ACTING = Access(allow_actions=True)
TOKEN = "correct-horse-battery-staple"
# All tests share one browser, so one event loop.
pytestmark = pytest.mark.asyncio(loop_scope="session")
LOOKS_FOCUSED = "() => { const style = getComputedStyle(document.activeElement); return style.outlineStyle !== 'none' }"


@pytest.fixture
def settings(redis_url: str, database_url: str, logging_kept: None) -> Settings:
    return settings_of(redis_url, database_url, max_tries=1)


@pytest_asyncio.fixture(loop_scope="session")
async def producer(redis_url: str) -> AsyncIterator[Producer]:
    async with Producer(redis_url) as producer:
        yield producer


async def killed(producer: Producer, settings: Settings, sql: Any, *names: str) -> list[str]:
    """The ids of jobs that died of a fault, which is then repaired."""
    jobs = [await producer.enqueue(user(name)) for name in names]
    await run_all(sql, BREAK)
    await burst(settings)
    await sql(MEND)
    return [job.job_id for job in jobs]


async def focused(tab: Page) -> str:
    """The text of the focused element; its focus must be visible."""
    assert await tab.evaluate(LOOKS_FOCUSED), "the focus is not visible"
    return str(
        await tab.evaluate(
            "() => { const at = document.activeElement; return at.ariaLabel || at.innerText || at.name }"
        )
    )


async def tab_to(tab: Page, name: str) -> None:
    """Press Tab until the element of this text has the focus."""
    for _ in range(40):
        await tab.keyboard.press("Tab")
        if (await focused(tab)).strip() == name:
            return
    raise AssertionError(f"the keyboard does not get to {name}")


async def test_a_dead_letter_is_found_understood_replayed_and_done(
    tab: Page, settings: Settings, producer: Producer, sql: Any
) -> None:
    async with served(settings, ACTING) as url, working(settings):
        await tab.goto(url)
        figure = tab.locator("#figure-dead-letters")
        await expect(figure).to_have_text("0")
        await run_all(sql, BREAK)
        job = await producer.enqueue(user("ada"))

        # Found: the figure changes by itself, and links to it.
        await expect(figure).to_have_text("1")
        await figure.click()
        await expect(tab.get_by_role("heading", level=1)).to_have_text("Dead letters")
        await tab.get_by_role("link", name=job.job_id).click()

        # Understood: the page shows why it died, and the names of its fields.
        await expect(tab.locator("#state")).to_have_text("dead")
        for text in ("RaiseError", "create_user", "Buried as a dead letter", "hashed_password"):
            await expect(tab.locator("main")).to_contain_text(text)
        await expect(tab.locator("main")).not_to_contain_text("ada@example.com")
        await sql(MEND)

        # Replayed, after a confirmation.
        await tab.get_by_role("button", name="Replay…").click()
        await expect(tab.get_by_role("heading", level=1)).to_have_text("Replay 1 dead letter?")
        await tab.get_by_role("button", name="Replay").click()
        await expect(tab.get_by_role("heading", level=1)).to_have_text("Replayed 1 of 1")

        # Done, without a reload.
        await tab.get_by_role("link", name=job.job_id).click()
        await expect(tab.locator("#state")).to_have_text("done")
        await expect(tab.locator("main")).to_contain_text("Its effect is committed.")
        await tab.get_by_role("link", name="Overview").click()
        await expect(figure).to_have_text("0")
        assert await sql("SELECT array_agg(username) FROM users") == ["ada"]


async def test_selected_letters_are_purged_and_the_others_stay(
    tab: Page, settings: Settings, producer: Producer, sql: Any
) -> None:
    job_ids = await killed(producer, settings, sql, "ada", "bob", "cy")
    async with served(settings, ACTING) as url:
        await tab.goto(f"{url}/dead")
        await tab.get_by_label("Select all on this page").check()
        await tab.get_by_label(job_ids[1]).uncheck()
        await tab.get_by_role("button", name="Purge selected…").click()
        await expect(tab.locator("main")).to_contain_text("This cannot be undone.")
        await tab.get_by_role("button", name="Purge for good").click()

        await expect(tab.get_by_role("heading", level=1)).to_have_text("Purged 2 of 2")
        await tab.get_by_role("link", name="Back to the dead letters").click()
        await expect(tab.locator("tbody tr")).to_have_count(1)
        await expect(tab.locator("tbody")).to_contain_text(job_ids[1])


async def test_every_action_works_by_the_keyboard_alone(
    tab: Page, settings: Settings, producer: Producer, sql: Any
) -> None:
    (job_id,) = await killed(producer, settings, sql, "ada")
    async with served(settings, ACTING) as url:
        await tab.goto(url)
        await tab.keyboard.press("Tab")
        assert await focused(tab) == "Skip to the content"
        await tab.keyboard.press("Enter")
        assert await tab.evaluate("() => document.activeElement.id") == "main"
        await tab.goto(f"{url}/jobs")
        await tab_to(tab, "Dead letters")
        await tab.keyboard.press("Enter")
        await expect(tab.get_by_role("heading", level=1)).to_have_text("Dead letters")
        await tab_to(tab, job_id)
        await tab.keyboard.press("Space")
        await expect(tab.get_by_label(job_id)).to_be_checked()
        await tab.keyboard.press("Shift+Tab")
        assert await focused(tab) == "Purge selected…"
        await tab.keyboard.press("Enter")
        await expect(tab.get_by_role("heading", level=1)).to_have_text("Purge 1 dead letter?")
        await tab_to(tab, "Purge for good")
        await tab.keyboard.press("Enter")

        await expect(tab.get_by_role("heading", level=1)).to_have_text("Purged 1 of 1")


async def test_figures_update_without_moving_the_focus(tab: Page, settings: Settings, producer: Producer) -> None:
    async with served(settings) as url:
        await tab.goto(url)
        await tab.evaluate("() => { window.here = true }")
        await tab.get_by_text("Throughput as a table").click()
        await tab.locator("#figure-dead-letters").focus()
        due = tab.locator(".figure", has_text="due").first.locator("dd")
        await expect(due).to_have_text("0")

        await producer.enqueue(user("ada"))

        await expect(due).to_have_text("1")
        await expect(tab.locator("#notice")).to_contain_text("No worker is running.")
        await burst(settings)
        await expect(due).to_have_text("0")
        await expect(tab.locator("#throughput_rows")).to_contain_text("now")
        assert await tab.locator("#throughput path.line-done").get_attribute("d")
        assert await tab.evaluate("() => window.here"), "the page was reloaded"
        assert await tab.evaluate("() => document.activeElement.id") == "figure-dead-letters"
        await expect(tab.get_by_role("table", name="Jobs ended per second")).to_be_visible()


async def test_the_page_of_a_job_updates_by_itself(tab: Page, settings: Settings, producer: Producer) -> None:
    job = await producer.enqueue(user("ada"))
    async with served(settings) as url:
        await tab.goto(f"{url}/jobs")
        await tab.get_by_label("By id").fill(job.job_id)
        await tab.get_by_role("button", name="Find job").click()
        await expect(tab.locator("#state")).to_have_text("due")
        await tab.evaluate("() => { window.here = true }")

        await burst(settings)

        await expect(tab.locator("#state")).to_have_text("done")
        assert await tab.evaluate("() => window.here"), "the page was reloaded"


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_every_page_is_accessible_in_both_schemes_and_on_a_phone(
    tab: Page, settings: Settings, producer: Producer, sql: Any, scheme: Any
) -> None:
    job_id, _ = await killed(producer, settings, sql, "ada", "bob")
    grounds = {"light": "rgb(245, 246, 249)", "dark": "rgb(13, 16, 22)"}
    async with served(settings, ACTING) as url, working(settings):
        await tab.emulate_media(color_scheme=scheme)
        for path in ("/", "/dead", "/jobs", f"/job?id={job_id}", "/key?key=user:42", "/schedule", "/no"):
            await tab.set_viewport_size({"width": 1280, "height": 900})
            answer = await tab.goto(url + path)
            assert answer is not None
            assert answer.status == (404 if path == "/no" else 200)
            assert await tab.evaluate("() => getComputedStyle(document.body).backgroundColor") == grounds[scheme]
            found = await Axe().run(tab)
            assert found.violations_count == 0, f"{path}: {found.generate_report()}"
            await tab.set_viewport_size({"width": 360, "height": 800})
            wide = await tab.evaluate("() => document.documentElement.scrollWidth")
            assert wide <= 360, f"{path} scrolls sideways: {wide}"


async def test_a_page_with_a_token_has_a_log_in_form(tab: Page, settings: Settings) -> None:
    async with served(settings, Access(token=TOKEN)) as url:
        await tab.goto(f"{url}/dead")
        await tab.get_by_label("Token").fill("hunter2-hunter2-hunter2")
        await tab.get_by_role("button", name="Log in").click()
        await expect(tab.get_by_role("alert")).to_have_text("Wrong token.")
        await tab.get_by_label("Token").fill(TOKEN)
        await tab.get_by_role("button", name="Log in").click()

        await expect(tab.get_by_role("heading", level=1)).to_have_text("Overview")
        await expect(tab.locator("#figure-dead-letters")).to_have_text("0")
        assert await tab.evaluate("() => document.cookie") == ""
        assert TOKEN not in tab.url + str(await tab.context.cookies())
        await tab.get_by_role("button", name="Log out").click()
        await expect(tab.get_by_role("heading", level=1)).to_have_text("Log in")


async def test_an_outage_and_its_end_are_shown_without_a_reload(
    tab: Page, server_folder: Any, database_url: str, logging_kept: None
) -> None:
    with ValkeyServer(server_folder / "browser") as server:
        settings = settings_of(server.url, database_url)
        async with served(settings) as url:
            await tab.goto(url)
            due = tab.locator(".figure", has_text="due").first.locator("dd")
            await expect(due).to_have_text("0")
            server.stop()
            await expect(tab.locator("#notice")).to_contain_text("Redis cannot be used")
            await expect(due).to_have_text("–")
            server.start()
            await expect(due).to_have_text("0")
            await expect(tab.locator("#notice")).not_to_contain_text("Redis cannot be used")
            async with Producer(server.url) as producer:
                job = await producer.enqueue(user("ada"))
            await tab.goto(f"{url}/job?id={job.job_id}")
            connection = tab.locator("#connection")
            await expect(connection).to_have_text("refreshed every 2 s")
            server.stop()
            await expect(connection).to_contain_text("a server is unreachable")
            server.start()
            await expect(connection).to_have_text("refreshed every 2 s")
            await tab.goto(url)
            await expect(due).to_have_text("1")
        port = int(url.rpartition(":")[2])
        await expect(connection).to_contain_text("does not answer")
        async with served(settings, port=port):
            await expect(connection).to_contain_text("live")


async def test_hostile_ids_are_shown_as_text(tab: Page, settings: Settings) -> None:
    hostile = b"<img src=x onerror=\"document.title='owned'\">"
    redis = connect(settings.redis_url.get_secret_value(), queue=QUEUE)
    await redis.zadd(keys.dead(QUEUE), {hostile: 1.0})
    await redis.hset(keys.dead_letters(QUEUE), hostile, '{"code":"<script>document.title=1</script>"}')  # type: ignore[misc, arg-type]
    async with served(settings, ACTING) as url:
        await tab.goto(f"{url}/dead")
        await expect(tab.locator("tbody")).to_contain_text("<script>document.title=1</script>")
        await tab.locator("tbody a").click()
        await expect(tab.locator("h1")).to_contain_text("<img")
        assert "owned" not in (await tab.title()).partition(" ")[0]
        assert await tab.locator("main img").count() == 0
    await redis.aclose()
    await redis.connection_pool.disconnect()

"""A real browser on a real page: one tab for each test, which must end without an error in its console."""

import os
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from tests.browser import chromium
from tests.integration.conftest import (
    database_url,
    eventually,
    logging_kept,
    postgres,
    redis_url,
    server_folder,
    sql,
    template,
    valkey,
)
from tests.waiting import PATIENCE_SECONDS

__all__ = [
    "database_url", "eventually", "logging_kept", "postgres", "redis_url", "server_folder", "sql", "template", "valkey",
]  # fmt: skip


expect.set_options(timeout=PATIENCE_SECONDS * 1000)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    path = chromium.find()
    if path is None:
        way_out = "there is no Chromium: apt-get install chromium, or set CHROMIUM to the path of one"
        if os.environ.get("BROWSER_EXPECTED"):
            pytest.fail(way_out)
        pytest.skip(way_out)
    async with chromium.started(path) as browser:
        yield browser


@pytest_asyncio.fixture(loop_scope="session")
async def tab(browser: Browser) -> AsyncIterator[Page]:
    """A tab in its own window."""
    context = await browser.new_context(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
    tab = await context.new_page()
    tab.set_default_timeout(PATIENCE_SECONDS * 1000)
    errors: list[str] = []
    tab.on("console", lambda message: errors.append(message.text) if message.type in {"error", "warning"} else None)
    tab.on("pageerror", lambda error: errors.append(str(error)))
    yield tab
    await context.close()
    # Some tests make pages fail and streams break: Chromium and htmx log it like this.
    expected = ("Failed to load resource", "[object Event]", "Response Status Error Code 503")
    assert [error for error in errors if not error.startswith(expected)] == []

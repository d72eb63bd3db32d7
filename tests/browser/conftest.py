"""A real browser before a real page: one tab for each test, which must end without an error in its console."""

import os
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Browser, Page

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

__all__ = [
    "database_url", "eventually", "logging_kept", "postgres", "redis_url", "server_folder", "sql", "template", "valkey",
]  # fmt: skip


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    path = chromium.find()
    if path is None:
        way_out = "there is no Chromium: apt-get install chromium, or set CHROMIUM to the path of one"
        if os.environ.get("BROWSER_EXPECTED"):
            pytest.fail(way_out)
        pytest.skip(way_out)
    async with chromium.started(path) as browser:
        yield browser


@pytest.fixture
async def tab(browser: Browser) -> AsyncIterator[Page]:
    """A tab of a window of its own."""
    context = await browser.new_context(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
    tab = await context.new_page()
    tab.set_default_timeout(10_000)
    errors: list[str] = []
    tab.on("console", lambda message: errors.append(message.text) if message.type in {"error", "warning"} else None)
    tab.on("pageerror", lambda error: errors.append(str(error)))
    yield tab
    await context.close()
    # A server that is away cannot be reached: some tests are about that.
    assert [error for error in errors if "ERR_CONNECTION_REFUSED" not in error and "ERR_INCOMPLETE" not in error] == []

"""Access to the dashboard: hosts, logins, sessions, forms, and the headers of every answer."""

import asyncio
import base64
import json
import re
from typing import Any

import httpx
import itsdangerous
import pytest
from starlette.routing import Route

from tests.acceptance.commands import WORKER, run
from tests.browser.serving import served
from tests.integration.dashboard.staging import ADDRESS, Page, browser, csrf_of, opened
from tests.integration.running import environment, settings_of
from worker.dashboard.params import MAX_FIELDS, MAX_FORM_BYTES
from worker.dashboard.security import SESSION_SECONDS, Access, InsecureAccess
from worker.dashboard.sessions import MAX_FAILED_LOGINS, FailedLogins, is_token
from worker.settings import Settings

TOKEN = "correct-horse-battery-staple"
ACTING = Access(allow_actions=True)
LOCKED = Access(host="0.0.0.0", token=TOKEN, allow_actions=True)  # noqa: S104  # listens nowhere
PATHS = [
    "/",
    "/login",
    "/jobs",
    "/job?id=a",
    "/key?key=a",
    "/dead",
    "/schedule",
    "/static/style.css",
    "/no",
    "/job?id=%5C",
]

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)


@pytest.fixture
def settings(redis_url: str, database_url: str) -> Settings:
    return settings_of(redis_url, database_url)


async def log_in(page: Page, token: str = TOKEN) -> httpx.Response:
    return await page.post("/login", token=token)


async def test_every_answer_has_the_security_headers(settings: Settings) -> None:
    async with opened(settings) as page:
        answers = [await page.client.get(path) for path in PATHS]
        answers += [await page.post("/dead/act"), await page.client.get("/", headers={"host": "evil.example"})]

    for answer in answers:
        assert answer.headers["content-security-policy"] == POLICY, answer.url
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cache-control"] == ("no-cache" if "/static" in str(answer.url) else "no-store")


async def test_pages_contain_nothing_that_the_policy_forbids(settings: Settings) -> None:
    async with opened(settings, ACTING) as page:
        pages = [(await page.client.get(path, follow_redirects=True)).text for path in PATHS if "static" not in path]

    for text in pages:
        assert "<html" in text
        assert (
            re.findall(r"<script(?![^>]*\bsrc=\"/static/)|<style|\bstyle=|\bon[a-z]+=|javascript:|https?://", text)
            == []
        )


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:8090", 200),
        ("127.0.0.1:1234", 200),
        ("[::1]:8090", 200),
        ("evil.example", 400),
        ("localhost.evil.example", 400),
        ("127.0.0.1.nip.example:8090", 400),
        ("", 400),
    ],
)
async def test_a_loopback_page_answers_only_its_own_host_names(settings: Settings, host: str, status: int) -> None:
    async with opened(settings) as page:
        answer = await page.client.get("/jobs", headers={"host": host})

    assert answer.status_code == status
    assert ("Find job" in answer.text) == (status == 200)


async def test_a_request_with_two_host_headers_is_refused(settings: Settings, logging_kept: None) -> None:
    async with served(settings) as url:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        writer.write(b"GET /jobs HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n")
        status = await reader.readline()
        writer.close()

    assert status.startswith(b"HTTP/1.1 400 ")


def test_access_beyond_loopback_without_a_token_is_refused() -> None:
    for host in ("0.0.0.0", "::", "192.0.2.1", "ops.example"):  # noqa: S104
        with pytest.raises(InsecureAccess, match="WORKER_DASHBOARD_TOKEN"):
            Access(host=host).check()
    for host in ("127.0.0.1", "127.8.8.8", "localhost", "::1", "[::1]"):
        Access(host=host).check()


@pytest.mark.parametrize(
    ("words", "variables", "message"),
    [
        (["--host", "0.0.0.0"], {}, "so it needs a token: export WORKER_DASHBOARD_TOKEN="),  # noqa: S104
        ([], {"WORKER_DASHBOARD_TOKEN": "short"}, "WORKER_DASHBOARD_TOKEN=…: must have 16 characters or more"),
        (["--host", "192.0.2.1"], {"WORKER_DASHBOARD_TOKEN": TOKEN}, "cannot listen on 192.0.2.1:8090"),
    ],
)
def test_a_refused_start_names_the_way_out(
    settings: Settings, words: list[str], variables: dict[str, str], message: str
) -> None:
    done = run(*WORKER, "dashboard", *words, variables={**environment(settings), **variables})

    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert done.stdout == ""
    assert "short" not in done.stderr.replace("…", "")


def test_without_its_extra_only_the_dashboard_command_fails(settings: Settings) -> None:
    code = "import sys; sys.modules['jinja2'] = None; from worker.__main__ import main; main()"
    missing = run(WORKER[0], "-c", code, "dashboard", variables=environment(settings))
    status = run(WORKER[0], "-c", code, "status", variables=environment(settings))

    assert missing.returncode == 2
    assert missing.stderr.splitlines() == [
        "the dashboard needs jinja2, which is not installed: pip install 'userpost-worker[dashboard]'"
    ]
    assert status.returncode == 0, status.stderr


async def test_every_page_with_a_token_requires_a_login(settings: Settings) -> None:
    async with opened(settings, LOCKED, address="http://ops.example:8090") as page:
        for route in page.dashboard.routes:
            if not isinstance(route, Route) or route.path in {"/login", "/logout"}:
                continue
            if "POST" in (route.methods or ()):
                assert (await page.post(route.path, id="a", action="purge")).status_code == 401, route.path
            elif route.path == "/events":
                assert (await page.client.get(route.path)).status_code == 401
            else:
                answer = await page.client.get(route.path)
                assert (answer.status_code, answer.headers["location"]) == (303, "/login")
        assert (await page.client.get("/login", params={"token": TOKEN})).status_code == 200
        assert (await page.client.get("/jobs", params={"token": TOKEN})).status_code == 303

        entered = await log_in(page)

        assert (entered.status_code, entered.headers["location"]) == (303, "/")
        assert "Find job" in await page.get("/jobs")
        assert "Log out" in await page.get("/jobs")
        left = await page.post("/logout")
        assert left.headers["location"] == "/login"
        assert (await page.client.get("/jobs")).status_code == 303


async def test_the_session_cookie_does_not_contain_the_token_and_is_hidden_from_scripts(settings: Settings) -> None:
    async with opened(settings, LOCKED, address="https://ops.example") as page:
        cookie = (await log_in(page)).headers["set-cookie"]

    assert TOKEN not in cookie
    assert json.loads(base64.b64decode(cookie.partition("=")[2].partition(".")[0])) == {"logged_in": True}
    attributes = cookie.lower().split("; ")  # their case has no meaning
    assert {"httponly", "samesite=strict", "secure", "path=/", f"max-age={SESSION_SECONDS}"} <= set(attributes)


async def test_a_wrong_token_is_refused_logged_without_its_value_and_limited(settings: Settings, logged: Any) -> None:
    async with opened(settings, LOCKED, address="http://ops.example:8090") as page:
        with logged() as lines:
            for _ in range(MAX_FAILED_LOGINS):
                wrong = await log_in(page, "hunter2-hunter2-hunter2")
                assert (wrong.status_code, "Wrong token." in wrong.text) == (403, True)
            logged_lines = lines()
        assert (await log_in(page)).status_code == 429
        assert (await page.client.get("/jobs")).status_code == 303

    refused = [line["remote"] for line in logged_lines if line["event"] == "dashboard_login_refused"]
    assert refused == ["127.0.0.1"] * MAX_FAILED_LOGINS
    assert "hunter2" not in str(logged_lines)


def test_failed_logins_block_one_address_for_a_minute() -> None:
    now = 0.0
    failed = FailedLogins(lambda: now)
    for _ in range(MAX_FAILED_LOGINS):
        failed.add("a")
    assert (failed.is_blocked("a"), failed.is_blocked("b")) == (True, False)
    now = 61.0

    assert not failed.is_blocked("a")


async def can_see(page: Page, cookie: str) -> bool:
    """Whether a browser with this session cookie sees the pages."""
    page.client.cookies.clear()
    answer = await page.client.get(
        "/jobs", headers=[(b"cookie", f"{LOCKED.session_cookie}={cookie}".encode("latin-1"))]
    )
    assert answer.status_code in {200, 303}
    return answer.status_code == 200


async def test_sessions_cannot_be_forged_and_expire(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(settings, LOCKED) as page:
        await page.client.get("/login")
        (before_login,) = page.client.cookies.values()
        await log_in(page)
        (cookie,) = page.client.cookies.values()
        assert await can_see(page, cookie)
        assert not await can_see(page, before_login)

        data, time, signature = cookie.split(".")
        logged_in = base64.b64encode(json.dumps({"logged_in": True}).encode()).decode()
        foreign = itsdangerous.TimestampSigner("another key").sign(logged_in).decode()
        _, time_before, signature_before = before_login.split(".")
        for forged in (
            f"{logged_in}.{time_before}.{signature_before}",
            f"{data}.{time[::-1]}.{signature}",
            f"{data}.{time}.{signature}0",
            f"{cookie}.{signature}",
            foreign, data, "", "...", "null", "\xe9.1.1.\xe9",
        ):  # fmt: skip
            assert not await can_see(page, forged), forged

        now = itsdangerous.TimestampSigner.get_timestamp(itsdangerous.TimestampSigner("any"))
        monkeypatch.setattr(itsdangerous.TimestampSigner, "get_timestamp", lambda _: now + SESSION_SECONDS - 60)
        assert await can_see(page, cookie)
        monkeypatch.setattr(itsdangerous.TimestampSigner, "get_timestamp", lambda _: now + SESSION_SECONDS + 60)
        assert not await can_see(page, cookie)


async def test_sessions_are_shared_by_processes_with_one_token_and_end_with_it(settings: Settings) -> None:
    async with opened(settings, LOCKED) as page:
        await log_in(page)
        (cookie,) = page.client.cookies.values()

    async with opened(settings, LOCKED) as page:
        assert await can_see(page, cookie)
    async with opened(settings, Access(LOCKED.host, token=TOKEN + "x")) as page:
        assert not await can_see(page, cookie)


def test_only_the_whole_token_is_accepted() -> None:
    assert [is_token(LOCKED, token) for token in (TOKEN, "", TOKEN + "x", TOKEN[:-1], "é")] == [True] + [False] * 4
    assert not is_token(Access(), "")
    assert not is_token(Access(token=""), "")


async def test_the_csrf_token_changes_at_the_login(settings: Settings) -> None:
    async with opened(settings, LOCKED) as page:
        await page.client.get("/login")
        before = csrf_of(page.client)
        await log_in(page)

        answer = await page.client.post("/dead/act", data={"csrf": before, "id": "a", "action": "purge"})

    assert answer.status_code == 403


async def test_every_form_requires_the_csrf_token_of_its_session(settings: Settings) -> None:
    async with opened(settings, ACTING) as page:
        paths = [
            route.path
            for route in page.dashboard.routes
            if isinstance(route, Route) and "POST" in (route.methods or ())
        ]
        assert set(paths) == {"/login", "/logout", "/dead/confirm", "/dead/act"}
        async with browser(page.dashboard) as other_browser:
            await other_browser.get("/jobs")
            others = csrf_of(other_browser)
        await page.get("/jobs")
        for path in paths:
            without = await page.post(path, csrf=False, id="a", action="purge", token=TOKEN)
            assert without.status_code == 403, path
            for other in ("", others):
                foreign = await page.client.post(path, data={"csrf": other, "id": "a", "action": "purge"})
                assert foreign.status_code == 403, path


async def test_forms_are_accepted_only_from_this_site_and_within_bounds(settings: Settings) -> None:
    async with opened(settings, ACTING) as page:

        async def status(**options: Any) -> int:
            return (await page.client.post("/dead/act", **options)).status_code

        await page.get("/dead")
        form = {"content-type": "application/x-www-form-urlencoded"}
        csrf = {"csrf": csrf_of(page.client)}
        assert await status(data=csrf, headers={"sec-fetch-site": "cross-site"}) == 403
        assert await status(data=csrf, headers={"sec-fetch-site": "same-origin"}) == 400, (
            "accepted, with nothing selected"
        )
        assert await status(json={"a": "b"}) == 415
        assert await status(files={"id": b"x"}) == 415
        assert await status(content=b"a" * (MAX_FORM_BYTES + 1), headers=form) == 413
        assert await status(content=b"&".join([b"id=a"] * (MAX_FIELDS + 1)), headers=form) == 400
        assert await status(content=b"\xff\xfe", headers=form) == 400


async def test_the_dashboard_is_read_only_by_default(settings: Settings) -> None:
    async with opened(settings) as page:
        await page.redis.zadd("arq:queue:dead", {"a": 1.0})
        text = await page.get("/dead") + await page.get("/job", id="a")
        refused = [await page.post(path, id="a", action="purge") for path in ("/dead/act", "/dead/confirm")]

        assert "read only" in text
        assert "<button" not in text
        assert [answer.status_code for answer in refused] == [403, 403]
        assert "--allow-actions" in refused[0].text
        assert await page.redis.zcard("arq:queue:dead") == 1


def test_the_tests_use_the_default_address() -> None:
    assert f"http://{Access().host}:{Access().port}" == ADDRESS

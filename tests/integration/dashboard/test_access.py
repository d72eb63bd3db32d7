"""Who is let in, from where, and what every answer forbids a browser."""

import re
from typing import Any

import httpx
import pytest
from starlette.routing import Route

from tests.acceptance.commands import WORKER, run
from tests.integration.dashboard.staging import ADDRESS, Page, opened
from tests.integration.running import environment, settings_of
from worker.dashboard.forms import MAX_BYTES, MAX_FIELDS
from worker.dashboard.security import Access, Refused
from worker.dashboard.sessions import LASTS_SECONDS, WRONG_TRIES, Sessions, WrongTries
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


async def test_every_answer_forbids_what_the_page_does_not_need(settings: Settings) -> None:
    async with opened(settings) as page:
        answers = [await page.client.get(path) for path in PATHS]
        answers += [await page.post("/dead/act"), await page.client.get("/", headers={"host": "evil.example"})]

    for answer in answers:
        assert answer.headers["content-security-policy"] == POLICY, answer.url
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cache-control"] == ("no-cache" if "/static" in str(answer.url) else "no-store")


async def test_pages_hold_nothing_that_the_policy_forbids(settings: Settings) -> None:
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
async def test_on_loopback_only_its_own_names_are_answered(settings: Settings, host: str, status: int) -> None:
    async with opened(settings) as page:
        answer = await page.client.get("/jobs", headers={"host": host})

    assert answer.status_code == status
    assert ("Find the job" in answer.text) == (status == 200)


async def test_two_host_headers_are_none(settings: Settings) -> None:
    async with opened(settings) as page:
        answer = await page.client.get("/jobs", headers=[("host", "localhost"), ("host", "evil.example")])

    assert answer.status_code == 400


def test_beyond_loopback_it_does_not_start_without_a_token() -> None:
    for host in ("0.0.0.0", "::", "192.0.2.1", "ops.example"):  # noqa: S104
        with pytest.raises(Refused, match="WORKER_DASHBOARD_TOKEN"):
            Access(host=host).check()
    for host in ("127.0.0.1", "127.8.8.8", "localhost", "::1", "[::1]"):
        Access(host=host).check()


@pytest.mark.parametrize(
    ("words", "variables", "said"),
    [
        (["--host", "0.0.0.0"], {}, "so it needs a token: export WORKER_DASHBOARD_TOKEN="),  # noqa: S104
        ([], {"WORKER_DASHBOARD_TOKEN": "short"}, "WORKER_DASHBOARD_TOKEN=…: must have 16 characters or more"),
        (["--host", "192.0.2.1"], {"WORKER_DASHBOARD_TOKEN": TOKEN}, "cannot be listened on"),
    ],
)
def test_a_start_that_is_refused_says_the_way_out(
    settings: Settings, words: list[str], variables: dict[str, str], said: str
) -> None:
    done = run(*WORKER, "dashboard", *words, variables={**environment(settings), **variables})

    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert done.stdout == ""
    assert "short" not in done.stderr.replace("…", "")


def test_without_its_extra_only_this_command_is_missing(settings: Settings) -> None:
    code = "import sys; sys.modules['jinja2'] = None; from worker.__main__ import main; main()"
    missing = run(WORKER[0], "-c", code, "dashboard", variables=environment(settings))
    status = run(WORKER[0], "-c", code, "status", variables=environment(settings))

    assert missing.returncode == 2
    assert missing.stderr.splitlines() == [
        "the dashboard needs jinja2, which is not installed: pip install 'userpost-worker[dashboard]'"
    ]
    assert status.returncode == 0, status.stderr


async def test_with_a_token_nothing_is_seen_before_one_has_logged_in(settings: Settings) -> None:
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
        assert "Find the job" in await page.get("/jobs")
        assert "Log out" in await page.get("/jobs")
        left = await page.post("/logout")
        assert left.headers["location"] == "/login"
        assert (await page.client.get("/jobs")).status_code == 303


async def test_the_cookie_is_not_the_token_and_no_script_reads_it(settings: Settings) -> None:
    async with opened(settings, LOCKED, address="https://ops.example") as page:
        cookie = (await log_in(page)).headers["set-cookie"]

    assert TOKEN not in cookie
    assert {"HttpOnly", "SameSite=Strict", "Secure", "Path=/"} <= set(cookie.split("; "))


async def test_a_wrong_token_opens_nothing_and_cannot_be_guessed(settings: Settings, logged: Any) -> None:
    async with opened(settings, LOCKED, address="http://ops.example:8090") as page:
        with logged() as lines:
            for _ in range(WRONG_TRIES):
                wrong = await log_in(page, "hunter2-hunter2-hunter2")
                assert (wrong.status_code, "That is not the token." in wrong.text) == (403, True)
            told = lines()
        assert (await log_in(page)).status_code == 429
        assert (await page.client.get("/jobs")).status_code == 303

    refused = [line["remote"] for line in told if line["event"] == "dashboard_login_refused"]
    assert refused == ["127.0.0.1"] * WRONG_TRIES
    assert "hunter2" not in str(told)


def test_wrong_tries_are_forgotten_after_a_minute_and_are_of_one_address() -> None:
    now = 0.0
    tries = WrongTries(lambda: now)
    for _ in range(WRONG_TRIES):
        tries.note("a")
    assert (tries.too_many("a"), tries.too_many("b")) == (True, False)
    now = 61.0

    assert not tries.too_many("a")


def test_sessions_cannot_be_made_up_and_end() -> None:
    now = 1000.0
    sessions = Sessions(TOKEN, 8090, lambda: now)
    stranger = sessions.new(known=False)
    cookie = sessions.header(stranger, secure=False).partition("; ")[0].partition("=")[2]
    assert sessions.of(cookie) == (stranger, False)

    nonce, _, since, mac = cookie.split(".")
    for made_up in (f"{nonce}.1.{since}.{mac}", "", "...", "é.1.1.é", cookie + "0", f"{cookie}.{mac}"):
        assert not sessions.of(made_up)[0].known, made_up
    assert not Sessions(TOKEN, 8090).of(cookie)[0].known, "another process's"
    now += LASTS_SECONDS + 1

    assert sessions.of(cookie)[1], "it has ended"
    assert [sessions.opens(token) for token in (TOKEN, "", TOKEN + "x", "é")] == [True, False, False, False]
    assert not Sessions(None, 8090).opens("")


async def test_every_form_needs_its_csrf_token(settings: Settings) -> None:
    async with opened(settings, ACTING) as page:
        paths = [
            route.path
            for route in page.dashboard.routes
            if isinstance(route, Route) and "POST" in (route.methods or ())
        ]
        assert set(paths) == {"/login", "/logout", "/dead/confirm", "/dead/act"}
        for path in paths:
            without = await page.post(path, csrf=False, id="a", action="purge", token=TOKEN)
            assert without.status_code == 403, path
            others = page.dashboard.desk.sessions.csrf(page.dashboard.desk.sessions.new(known=True))
            foreign = await page.client.post(path, data={"csrf": others, "id": "a", "action": "purge"})
            assert foreign.status_code == 403, path


async def test_forms_are_taken_from_this_page_only_and_within_bounds(settings: Settings) -> None:
    async with opened(settings, ACTING) as page:

        async def status(**options: Any) -> int:
            return (await page.client.post("/dead/act", **options)).status_code

        await page.get("/dead")
        form = {"content-type": "application/x-www-form-urlencoded"}
        session, _ = page.dashboard.desk.sessions.of(page.client.cookies.get(page.dashboard.desk.sessions.cookie))
        csrf = {"csrf": page.dashboard.desk.sessions.csrf(session)}
        assert await status(data=csrf, headers={"sec-fetch-site": "cross-site"}) == 403
        assert await status(data=csrf, headers={"sec-fetch-site": "same-origin"}) == 400, "taken, and nothing ticked"
        assert await status(json={"a": "b"}) == 415
        assert await status(files={"id": b"x"}) == 415
        assert await status(content=b"a" * (MAX_BYTES + 1), headers=form) == 413
        assert await status(content=b"&".join([b"id=a"] * (MAX_FIELDS + 1)), headers=form) == 400
        assert await status(content=b"\xff\xfe", headers=form) == 400


async def test_by_default_one_can_only_look(settings: Settings) -> None:
    async with opened(settings) as page:
        await page.redis.zadd("arq:queue:dead", {"a": 1.0})
        looked = await page.get("/dead") + await page.get("/job", id="a")
        refused = [await page.post(path, id="a", action="purge") for path in ("/dead/act", "/dead/confirm")]

        assert "read only" in looked
        assert "<button" not in looked
        assert [answer.status_code for answer in refused] == [403, 403]
        assert "--allow-actions" in refused[0].text
        assert await page.redis.zcard("arq:queue:dead") == 1


def test_the_address_of_the_tests_is_the_default_one() -> None:
    assert f"http://{Access().host}:{Access().port}" == ADDRESS

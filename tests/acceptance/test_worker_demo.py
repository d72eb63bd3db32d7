"""`worker demo` accounts for every job, and fails when something is missing."""

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.commands import WORKER, Running, eventually, run
from tests.acceptance.conftest import Place
from tests.waiting import HANG_SECONDS
from worker.database.session import create_engine
from worker.database.startup import create_tables
from worker.embedded import EmbeddedServers

pytestmark = pytest.mark.timeout(HANG_SECONDS)

DEMO = (*WORKER, "demo", "--jobs", "200")
JOBS = {"create_user", "update_user", "delete_user", "create_post", "update_post", "delete_post"}


def report(output: str) -> dict[str, Any]:
    """The one line that the command prints into a pipe."""
    (line,) = output.splitlines()
    parsed: dict[str, Any] = json.loads(line)
    return parsed


def test_demo_accounts_for_every_job() -> None:
    done = run(*DEMO, "--ephemeral", seconds=HANG_SECONDS)

    assert done.returncode == 0, done.stderr
    printed = report(done.stdout)
    by_job, database = printed["by_job"], printed["database"]
    assert printed["accounted"] is True
    assert by_job.keys() == JOBS
    assert printed["jobs"] == sum(counts["sent"] for counts in by_job.values()) == 200
    for counts in by_job.values():
        assert counts["sent"] == counts["done"] + counts["rejected"]
        assert (counts["dead"], counts["unexpected"]) == (0, 0)
    for rows in database.values():
        assert rows["expected"] == rows["found"]
    for outcome in ("done", "rejected", "dead"):
        assert database[f"ledger: {outcome}"]["found"] == sum(counts[outcome] for counts in by_job.values())
    # Every job type has jobs that are done, and some jobs are rejected.
    assert all(counts["done"] for counts in by_job.values())
    assert sum(counts["rejected"] for counts in by_job.values()) > 0
    created, left = by_job["create_user"]["done"], database["users"]["found"]
    assert 0 < left < created
    assert 0 < printed["first_done_seconds"] <= printed["seconds"] + 0.01
    assert printed["wait_ms"]["p50"] <= printed["wait_ms"]["p95"] <= printed["wait_ms"]["p99"]


SWALLOWED = """
    CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN DELETE FROM posts WHERE id = NEW.id; RETURN NULL; END $$
"""
TRIGGER = (
    "CREATE TRIGGER swallow AFTER INSERT ON posts FOR EACH ROW WHEN (NEW.title = 'Post 58') EXECUTE FUNCTION swallow()"
)


def test_demo_fails_when_one_post_is_lost(kept: Path) -> None:
    # given a database that silently loses one post after its insert
    with EmbeddedServers(kept) as servers:
        asyncio.run(make_tables(servers.urls.database))
        place = Place(servers.urls.database, servers.urls.redis)
        place.sql(SWALLOWED)
        place.sql(TRIGGER)
    try:
        # when the demo runs on it
        done = run(*DEMO, "--folder", str(kept), seconds=HANG_SECONDS)
    finally:
        with EmbeddedServers(kept) as servers:
            place = Place(servers.urls.database, servers.urls.redis)
            place.sql("DROP FUNCTION swallow CASCADE")

    # then it fails and shows the difference
    assert done.returncode == 1
    assert "Jobs are unaccounted for." in done.stderr
    printed = report(done.stdout)
    assert printed["accounted"] is False
    different = {name: rows for name, rows in printed["database"].items() if rows["expected"] != rows["found"]}
    assert different.keys() == {"posts"}
    assert different["posts"]["found"] == different["posts"]["expected"] - 1
    # No other job uses that post, so no outcome shows the loss.
    assert [counts["unexpected"] for counts in printed["by_job"].values()] == [0] * len(JOBS)


async def make_tables(database: str) -> None:
    engine = create_engine(database, pool_size=1)
    await create_tables(engine)
    await engine.dispose()


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=lambda by: by.name)
def test_demo_ends_its_worker_and_its_servers_at_a_signal(reachable: Path, kept: Path, by: signal.Signals) -> None:
    command = (*WORKER, "demo", "--jobs", "5000", "--folder", str(kept))
    with Running(command, {"TMPDIR": str(reachable)}) as demo:
        # given that its worker has started
        eventually(lambda: has_worker(demo, reachable), seconds=HANG_SECONDS)

        code = demo.stop(by, seconds=HANG_SECONDS)

        # then it does not report success, and leaves no process and no temporary file
        assert code != 0
        assert running_in(reachable) == running_in(kept) == []
        assert list(reachable.glob("worker-demo-*/*")) == []


def has_worker(demo: Running, folder: Path) -> bool:
    """Whether the demo's worker has logged something. The demo must still be running."""
    assert demo.process.poll() is None, demo.output()
    return any(log.stat().st_size for log in folder.glob("worker-demo-*/*"))


def running_in(folder: Path) -> list[str]:
    """The command lines of the processes that use the folder."""
    return [line for line in map(command_line, Path("/proc").glob("[0-9]*")) if str(folder) in line]


def command_line(process: Path) -> str:
    """The arguments and variables of a process. The servers' arguments hold the folder, and the worker's variables."""
    try:
        return (process / "cmdline").read_text() + (process / "environ").read_text(errors="replace")
    except OSError:
        return ""

"""`worker demo`: the numbers add up, and it fails when something is unaccounted for."""

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.commands import WORKER, Running, eventually, run
from tests.acceptance.conftest import Place
from worker.database.session import create_engine
from worker.database.startup import create_tables
from worker.embedded import EmbeddedServers

DEMO = (*WORKER, "demo", "--jobs", "200")
JOBS = {"create_user", "update_user", "delete_user", "create_post", "update_post", "delete_post"}


def report(output: str) -> dict[str, Any]:
    """The one line that it prints into a pipe."""
    (line,) = output.splitlines()
    found: dict[str, Any] = json.loads(line)
    return found


def test_every_job_is_accounted_for_and_the_numbers_add_up() -> None:
    done = run(*DEMO, "--ephemeral", seconds=60)

    assert done.returncode == 0, done.stderr
    told = report(done.stdout)
    by_job, database = told["by_job"], told["database"]
    assert told["accounted"] is True
    assert by_job.keys() == JOBS
    assert told["jobs"] == sum(tally["asked"] for tally in by_job.values()) == 200
    for tally in by_job.values():
        assert tally["asked"] == tally["done"] + tally["rejected"]
        assert (tally["dead"], tally["unexpected"]) == (0, 0)
    for truth in database.values():
        assert truth["expected"] == truth["found"]
    for outcome in ("done", "rejected", "dead"):
        assert database[f"ledger: {outcome}"]["found"] == sum(tally[outcome] for tally in by_job.values())
    # Each kind was really asked for, each is done for some, and some requests cannot be honoured.
    assert all(tally["done"] for tally in by_job.values())
    assert sum(tally["rejected"] for tally in by_job.values()) > 0
    created, deleted = by_job["create_user"]["done"], database["users"]["found"]
    assert 0 < deleted < created
    assert 0 < told["first_done_seconds"] <= told["seconds"] + 0.01
    assert told["wait_ms"]["p50"] <= told["wait_ms"]["p95"] <= told["wait_ms"]["p99"]


SWALLOWED = """
    CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN DELETE FROM posts WHERE id = NEW.id; RETURN NULL; END $$
"""
TRIGGER = (
    "CREATE TRIGGER swallow AFTER INSERT ON posts FOR EACH ROW WHEN (NEW.title = 'Post 58') EXECUTE FUNCTION swallow()"
)


def test_one_lost_post_among_all_the_jobs_is_noticed(kept: Path) -> None:
    # Given a database that loses one post after it was told that it is there
    with EmbeddedServers(kept) as servers:
        asyncio.run(make_tables(servers.urls.database))
        place = Place(servers.urls.database, servers.urls.redis)
        place.sql(SWALLOWED)
        place.sql(TRIGGER)
    try:
        # When the demo runs on it
        done = run(*DEMO, "--folder", str(kept), seconds=60)
    finally:
        with EmbeddedServers(kept) as servers:
            place = Place(servers.urls.database, servers.urls.redis)
            place.sql("DROP FUNCTION swallow CASCADE")

    # Then it fails, and says where the numbers part
    assert done.returncode == 1
    assert "Not all is accounted for." in done.stderr
    told = report(done.stdout)
    assert told["accounted"] is False
    parted = {name: truth for name, truth in told["database"].items() if truth["expected"] != truth["found"]}
    assert parted.keys() == {"posts"}
    assert parted["posts"]["found"] == parted["posts"]["expected"] - 1
    # No job asked for that post again, so the table alone tells.
    assert [tally["unexpected"] for tally in told["by_job"].values()] == [0] * len(JOBS)


async def make_tables(database: str) -> None:
    engine = create_engine(database, pool_size=1)
    await create_tables(engine)
    await engine.dispose()


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop_it_ends_its_worker_and_its_servers(reachable: Path, kept: Path, by: signal.Signals) -> None:
    command = (*WORKER, "demo", "--jobs", "5000", "--folder", str(kept))
    with Running(command, {"TMPDIR": str(reachable)}) as demo:
        # Given that its worker runs
        eventually(lambda: [log for log in reachable.glob("worker-demo-*/*") if log.stat().st_size], hint=demo.output)

        code = demo.stop(by)

        # Then it does not claim success, and no process and no temporary file is left
        assert code != 0
        assert left_running(reachable) == left_running(kept) == []
        assert list(reachable.glob("worker-demo-*/*")) == []


def left_running(folder: Path) -> list[str]:
    """The command lines of the processes whose temporary files are in the folder."""
    return [line for line in map(command_line, Path("/proc").glob("[0-9]*")) if str(folder) in line]


def command_line(process: Path) -> str:
    """What a process was started with: the servers have the folder in their arguments, the worker in its variables."""
    try:
        return (process / "cmdline").read_text() + (process / "environ").read_text(errors="replace")
    except OSError:
        return ""

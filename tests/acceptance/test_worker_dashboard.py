"""`worker dashboard` as a process: it serves its page, and ends at once even while somebody watches."""

import hashlib
import re
import socket
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path

from tests.acceptance.commands import ROOT, WORKER, Running
from tests.acceptance.conftest import Place
from tests.acceptance.pages import free_port
from tests.waiting import PATIENCE_SECONDS, Stopwatch

VENDOR = ROOT / "worker" / "dashboard" / "static" / "vendor"


def test_it_serves_until_it_is_told_to_stop(place: Place) -> None:
    port = free_port()
    with Running([*WORKER, "dashboard", "--port", str(port)], place.variables) as dashboard:
        dashboard.wait_for(f"http://127.0.0.1:{port}/")
        with closing(HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)) as watching:
            watching.request("GET", "/events")
            with watching.getresponse() as stream:
                assert stream.status == 200
                assert b"event: figures\n" in iter(stream.readline, b"")
                watch = Stopwatch()

                code = dashboard.stop()

                assert code == 0, dashboard.output()
                assert watch.seconds() < 5
                stream.read()  # would raise if the stream had been torn off
        assert dashboard.output().splitlines()[1:] == []


def test_a_port_that_is_taken_is_said_in_one_line(place: Place) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with Running([*WORKER, "dashboard", "--port", str(port)], place.variables) as dashboard:
            assert dashboard.process.wait(PATIENCE_SECONDS) == 2
            said = f"127.0.0.1:{port} cannot be listened on (Address already in use): choose another --port or --host"
            assert dashboard.output() == said + "\n"


def test_what_others_wrote_is_served_unchanged_and_with_its_licence() -> None:
    told = dict(
        re.findall(r"^(\S+\.js) .*\n  sha256 ([0-9a-f]{64})$", (VENDOR / "VERSIONS.txt").read_text(), re.MULTILINE)
    )

    assert told == {path.name: sha256(path) for path in VENDOR.glob("*.js")}
    assert {name.removesuffix(".min.js") + ".LICENSE.txt" for name in told} == {
        path.name for path in VENDOR.glob("*.LICENSE.txt")
    }


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()

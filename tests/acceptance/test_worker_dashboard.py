"""`worker dashboard` as a process: it serves its page, and stops at once even while a browser is connected."""

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


def test_dashboard_serves_until_sigterm(place: Place) -> None:
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
                stream.read()  # raises if the stream was cut
        assert dashboard.output().splitlines()[1:] == []


def test_dashboard_reports_a_port_in_use_in_one_line(place: Place) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with Running([*WORKER, "dashboard", "--port", str(port)], place.variables) as dashboard:
            assert dashboard.process.wait(PATIENCE_SECONDS) == 2
            line = f"cannot listen on 127.0.0.1:{port} (Address already in use): choose another --port or --host"
            assert dashboard.output() == line + "\n"


def test_vendored_files_are_unchanged_and_have_their_licences() -> None:
    listed = dict(
        re.findall(r"^(\S+\.js) .*\n  sha256 ([0-9a-f]{64})$", (VENDOR / "VERSIONS.txt").read_text(), re.MULTILINE)
    )

    assert listed == {path.name: sha256(path) for path in VENDOR.glob("*.js")}
    assert {name.removesuffix(".min.js") + ".LICENSE.txt" for name in listed} == {
        path.name for path in VENDOR.glob("*.LICENSE.txt")
    }


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()

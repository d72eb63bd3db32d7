"""The commands and scripts of README.md work when they are pasted.

A comment before each block marks how it is used: `run: dev` starts it and keeps it running, `run: terminal` pastes it
into a second terminal, `run: python` runs it as a script, `printed by: dev` compares it, and `not run: …` gives the
reason.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from tests.acceptance.commands import ROOT, Running, environment, eventually, run
from tests.waiting import PATIENCE_SECONDS

README = (ROOT / "README.md").read_text()
PRINTED = re.compile(r"^export \w+=\S+$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block, and its mark in the comment before it."""

    language: str
    mark: str
    text: str


def blocks() -> list[Block]:
    found = re.findall(r"(?:<!-- ([^\n]*) -->\n)?^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return [Block(language, mark, text) for mark, language, text in found]


def marked(mark: str) -> list[str]:
    return [block.text for block in blocks() if block.mark == mark]


class Terminal:
    """A shell that commands are pasted into. It exits at the first that fails."""

    def __init__(self, folder: Path) -> None:
        self._output = tempfile.TemporaryFile("w+b")  # noqa: SIM115  # closed with the shell
        self._pasted = 0
        self._shell = subprocess.Popen(
            ["sh", "-e"], env=environment(), cwd=folder, stdin=subprocess.PIPE, stdout=self._output, stderr=self._output
        )

    def paste(self, text: str) -> str:
        """Paste lines; their output."""
        self._pasted += 1
        before, end = len(self._read()), f"== end of {self._pasted} ==\n"
        assert self._shell.stdin is not None
        self._shell.stdin.write(f"{text}\nprintf '{end.rstrip()}\\n'\n".encode())
        self._shell.stdin.flush()

        def ended() -> bool:
            assert self._shell.poll() is None, f"failed:\n{text}\n{self._read()[before:]}"
            return self._read().endswith(end)

        eventually(ended, hint=lambda: f"{text}\n{self._read()[before:]}")
        return self._read()[before:].removesuffix(end)

    def _read(self) -> str:
        descriptor = self._output.fileno()
        return os.pread(descriptor, os.fstat(descriptor).st_size, 0).decode()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._shell.stdin is not None
        self._shell.stdin.close()
        try:
            self._shell.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self._shell.kill()
            self._shell.wait()
        self._output.close()


def test_every_block_is_run_or_gives_a_reason() -> None:
    known = {"run: dev", "run: terminal", "run: python", "printed by: dev"}

    unmarked = [block for block in blocks() if block.mark not in known and not block.mark.startswith("not run: ")]

    assert unmarked == []
    assert README.count("```") == 2 * len(blocks())
    assert all(marked(mark) for mark in known)
    assert {block.language for block in blocks() if block.mark == "run: python"} == {"python"}


def test_what_is_pasted_works(reachable: Path, tmp_path: Path) -> None:
    (dev,), (printed,) = marked("run: dev"), marked("printed by: dev")
    first, enqueue, read, contract = marked("run: terminal")
    producer, sync_producer, arq_client = marked("run: python")

    # Given the first terminal (with data of its own, since the default is the user's)
    with Running(("sh", "-c", f"exec {dev.strip()} --folder {reachable}")) as worker, Terminal(tmp_path) as terminal:
        exports = PRINTED.findall(worker.wait_for("worker_started"))

        # Then it prints what is shown
        for shown, export in zip(printed.splitlines(), exports, strict=True):
            assert re.fullmatch(r"[^@:/\s]+".join(map(re.escape, shown.split("…"))), export), shown

        # When the lines and the commands are pasted into the second, then they do what the README promises
        terminal.paste("\n".join(exports))
        user, post, check = terminal.paste(first).splitlines()
        assert json.loads(user)["reply"]["username"] == "ada"
        assert json.loads(post)["reply"]["title"] == "On engines"
        assert check == "healthy"

        # And so do the scripts
        variables = dict(export.removeprefix("export ").split("=", 1) for export in exports)
        assert re.match(r"\d+ grace \d{4}-\d\d-\d\d ", script(producer, variables, tmp_path))
        assert re.fullmatch(r"post \d+\n", script(sync_producer, variables, tmp_path))
        assert script(sync_producer, variables, tmp_path) == f"post {json.loads(post)['reply']['id'] + 1}\n"
        assert script(arq_client, variables, tmp_path) == "{'deleted': False}\n"

        # And redis-cli alone is enough
        assert terminal.paste(enqueue).split() == ["OK", "1"]
        result = json.loads(eventually(lambda: terminal.paste(read).strip()))
        assert (result["s"], result["r"]["username"]) == (True, "joan")

        # And the contract is written
        assert terminal.paste(contract) == ""
        assert json.loads((tmp_path / "asyncapi.json").read_text())["asyncapi"] == "3.0.0"
        assert worker.stop() == 0


def script(text: str, variables: dict[str, str], folder: Path) -> str:
    """The output of a script."""
    path = folder / "script.py"
    path.write_text(text)
    done = run(sys.executable, str(path), variables=variables, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_demo_starts_the_demo() -> None:
    done = run("make", "--dry-run", "demo", "DEMO_ARGS=--jobs 200")

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].split() == [".venv/bin/worker", "demo", "--ephemeral", "--jobs", "200"]

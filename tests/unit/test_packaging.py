"""Pins, the wheel, the Makefile, the image, CI, and what no file may name."""

import os
import re
import shutil
import subprocess
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from hatchling.builders.wheel import WheelBuilder
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]

needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
needs_git = pytest.mark.skipif(shutil.which("git") is None or not (ROOT / ".git").exists(), reason="not a git checkout")


def run(*command: str) -> subprocess.CompletedProcess[str]:
    # The tests may themselves be run by make, whose variables would reach a make that is started here.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def lines_of(name: str) -> list[str]:
    """The lines of a file without blank ones and comments."""
    lines = (line.strip() for line in (ROOT / name).read_text().splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def test_direct_dependencies_are_pinned_once_and_within_their_ranges() -> None:
    # Options, addresses, paths, markers and ranges all have a character that is not allowed here.
    pins = [re.fullmatch(r"([A-Za-z0-9._-]+)==([0-9][A-Za-z0-9.]*)", line) for line in lines_of("constraints.txt")]
    pinned = {canonicalize_name(pin[1]): pin[2] for pin in pins if pin is not None}
    required = [Requirement(text) for texts in [PROJECT["dependencies"], *EXTRAS.values()] for text in texts]
    direct = [each for each in required if each.name != PROJECT["name"]]

    assert len(pinned) == len(pins), "not a pin, or pinned twice"
    assert [str(each) for each in direct if canonicalize_name(each.name) not in pinned] == [], "run `make constraints`"
    outside = [each for each in direct if not each.specifier.contains(pinned[canonicalize_name(each.name)], True)]
    assert list(map(str, outside)) == []
    assert {extra for each in required if each.name == PROJECT["name"] for extra in each.extras} <= EXTRAS.keys()


def test_the_wheel_holds_every_file_of_the_packages(tmp_path: Path) -> None:
    # Also files that are not modules: scripts, migrations, the mark that there are types.
    (wheel,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    with zipfile.ZipFile(wheel) as opened:
        held = {name for name in opened.namelist() if ".dist-info/" not in name}
    files = (path for package in ("producers", "worker") for path in (ROOT / package).rglob("*") if path.is_file())

    assert held == {path.relative_to(ROOT).as_posix() for path in files if "__pycache__" not in path.parts}
    assert "worker/database/migrations/versions/0001_tables.py" in held


def make_targets() -> set[str]:
    return set(re.findall(r"^\.PHONY: (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE))


@needs_make
def test_make_alone_describes_every_target_without_colours_in_a_pipe() -> None:
    listed = run("make")

    assert listed.returncode == 0, listed.stderr
    assert set(re.findall(r"^  ([a-z-]+) +\S.*$", listed.stdout, re.MULTILINE)) == make_targets()
    assert "\033" not in listed.stdout


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", "constraints.txt"])
def test_make_targets_in_the_docs_exist(document: str) -> None:
    code = re.findall(r"```.*?```|`[^`\n]+`", (ROOT / document).read_text(), re.DOTALL)
    # `make -j4 PYTHON=… test` calls `test`.
    call = re.compile(r"(?:^\s*\$?\s*|[`;&|]\s*)make(?:[ ]+(?:-\S+|[A-Z_]+=\S+))*[ ]+([a-z][a-z-]*)", re.MULTILINE)

    assert {target for part in code for target in call.findall(part)} <= make_targets()


def test_the_image_is_built_from_the_files_that_dockerignore_lets_in() -> None:
    copies = re.findall(r"^COPY (?!--from)(.+) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    everything, *rest = lines_of(".dockerignore")

    assert everything == "*"
    assert {line[1:] for line in rest if line.startswith("!")} == {name for copy in copies for name in copy.split()}


def test_ci_runs_on_every_python_that_is_promised() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    promised = re.findall(r"Python :: (3\.\d+)$", "\n".join(PROJECT["classifiers"]), re.MULTILINE)

    assert workflow["jobs"]["run"]["strategy"]["matrix"]["python"] == promised
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


@needs_git
def test_git_ignores_secrets() -> None:
    assert run("git", "check-ignore", "--quiet", ".env").returncode == 0, ".gitignore must name .env"
    assert run("git", "check-ignore", "--quiet", ".env.example").returncode == 1


@needs_git
def test_no_file_names_this_machine_or_a_package_index() -> None:
    # Written so that this file does not match itself.
    index = r"://[\w.:-]+/(?:simple|packages/[0-9a-f]{2})/|pypi[.]org|python[h]osted"
    # A checkout right below the root may share its name with anything.
    places = [ROOT] if len(ROOT.parts) > 2 else []
    if str(Path.home().parent) in {"/home", "/Users"}:
        places.append(Path.home())
    unwanted = re.compile("|".join([index, *(rf"{re.escape(str(place))}(?![\w.-])" for place in places)]))

    listed = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    assert listed.returncode == 0, listed.stderr
    names = [name for name in listed.stdout.split("\0") if (ROOT / name).is_file()]

    assert "pyproject.toml" in names
    assert [name for name in names if unwanted.search((ROOT / name).read_text(errors="replace"))] == []

"""Whether what surrounds the code is true: pins, Makefile, containers, CI, and what the files may not name."""

import os
import re
import shutil
import subprocess
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from hatchling.builders.wheel import WheelBuilder
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MAKEFILE = (ROOT / "Makefile").read_text()
COMPOSE_TEXT = (ROOT / "docker-compose.yml").read_text()
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE_TEXT)["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()

needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
needs_git = pytest.mark.skipif(shutil.which("git") is None or not (ROOT / ".git").exists(), reason="not a git checkout")


def run(*command: str) -> subprocess.CompletedProcess[str]:
    # The tests may themselves be run by make, whose variables would reach a make that is started here.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def lines_of(name: str) -> list[str]:
    """The lines of a file that say something."""
    lines = (line.strip() for line in (ROOT / name).read_text().splitlines())
    return [line for line in lines if line and not line.startswith("#")]


# Pins


def pins() -> dict[str, Version]:
    pinned: dict[str, Version] = {}
    for line in lines_of("constraints.txt"):
        name, _, version = line.partition("==")
        assert canonicalize_name(name) not in pinned, f"{name} is pinned twice"
        pinned[canonicalize_name(name)] = Version(version)
    return pinned


def direct_dependencies() -> list[Requirement]:
    """What the base and the extras ask for, but for the extras that name one another."""
    extras: dict[str, list[str]] = PROJECT["optional-dependencies"]
    texts = [*PROJECT["dependencies"], *(text for requirements in extras.values() for text in requirements)]
    return [requirement for requirement in map(Requirement, texts) if requirement.name != PROJECT["name"]]


def test_constraints_are_plain_pins() -> None:
    # Options, addresses, paths, markers and ranges all have a character that is not allowed here.
    plain = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*==[0-9][A-Za-z0-9.]*")

    assert [line for line in lines_of("constraints.txt") if not plain.fullmatch(line)] == []


def test_direct_dependencies_are_pinned_within_their_ranges() -> None:
    pinned = pins()
    required = direct_dependencies()
    assert len(required) > len(PROJECT["dependencies"])

    unpinned = [str(each) for each in required if canonicalize_name(each.name) not in pinned]
    assert unpinned == [], "run `make constraints`"
    outside = [
        str(each)
        for each in required
        if not each.specifier.contains(pinned[canonicalize_name(each.name)], prereleases=True)
    ]
    assert outside == []


def test_every_extra_that_an_extra_names_exists() -> None:
    extras: dict[str, list[str]] = PROJECT["optional-dependencies"]
    named = {
        extra
        for requirements in extras.values()
        for requirement in map(Requirement, requirements)
        if requirement.name == PROJECT["name"]
        for extra in requirement.extras
    }

    assert named <= extras.keys()


# The wheel


def test_the_wheel_holds_every_file_of_the_packages(tmp_path: Path) -> None:
    # Also what is no module that anything imports: scripts, migrations, the mark that there are types.
    (wheel,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    with zipfile.ZipFile(wheel) as opened:
        held = {name for name in opened.namelist() if ".dist-info/" not in name}
    files = (path for package in ("producers", "worker") for path in (ROOT / package).rglob("*") if path.is_file())
    there = {path.relative_to(ROOT).as_posix() for path in files if "__pycache__" not in path.parts}

    assert "worker/database/migrations/versions/0001_tables.py" in held
    assert held == there


# Makefile


def phony_targets() -> set[str]:
    return {name for names in re.findall(r"^\.PHONY:(.*)$", MAKEFILE, re.MULTILINE) for name in names.split()}


def documented_targets(name: str) -> set[str]:
    """What the code in a document asks make for: `make -j4 PYTHON=… test` asks for `test`."""
    code = re.findall(r"```.*?```|`[^`\n]+`", (ROOT / name).read_text(), re.DOTALL)
    call = re.compile(r"(?:^\s*\$?\s*|[`;&|]\s*)make(?:[ ]+(?:-\S+|[A-Z_]+=\S+))*[ ]+([a-z][a-z-]*)", re.MULTILINE)
    return {target for part in code for target in call.findall(part)}


@needs_make
def test_make_help_describes_every_target() -> None:
    listed = run("make", "help")
    assert listed.returncode == 0, listed.stderr

    described = dict(re.findall(r"^  ([a-z-]+) +(\S.*)$", listed.stdout, re.MULTILINE))

    assert described.keys() == phony_targets()


@needs_make
def test_make_alone_gives_help_without_colours_to_a_pipe() -> None:
    alone = run("make")

    assert alone.stdout == run("make", "help").stdout
    assert "\033" not in alone.stdout


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", "constraints.txt"])
def test_every_make_target_in_the_docs_exists(document: str) -> None:
    assert documented_targets(document) <= phony_targets()


# Containers


def volumes(service: str) -> dict[str, str]:
    """Where each volume of a service is mounted."""
    mounts = (volume.split(":")[:2] for volume in SERVICES[service].get("volumes", []))
    return {source: target for source, target in mounts if not source.startswith(".")}


def test_ports_are_published_on_loopback_only() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}

    assert published.keys() == {"redis", "postgres", "prometheus", "grafana"}
    for port in (port for ports in published.values() for port in ports):
        assert re.fullmatch(r"127\.0\.0\.1:\$\{[A-Z_]+:-\d+\}:\d+", port), port


def test_compose_holds_no_secret_and_does_not_start_without_one() -> None:
    required, asked_for_later = r"\$\{[A-Z_]+:\?[^}]+\}", r"\$\{[A-Z_]+:-\}"
    found = 0
    for service in SERVICES.values():
        # Compose would ask for what a profile needs that nobody wants: see test_deploy_compose.
        expected = asked_for_later if "profiles" in service else required
        for name, value in service.get("environment", {}).items():
            if re.search("PASSWORD|AUTH|SECRET|TOKEN|KEY", name):
                assert re.fullmatch(expected, value), name
                found += 1
            elif "://" in value:
                assert re.match(rf"[a-z]+://[a-z]*:{expected}@", value), name
                found += 1

    assert found == 5


def test_compose_asks_for_nothing_that_the_example_does_not_name() -> None:
    asked = set(re.findall(r"(?<!\$)\$\{([A-Z_]+)", COMPOSE_TEXT))
    named = set(re.findall(r"^#?([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))

    assert asked == named


def test_example_environment_has_no_values() -> None:
    assert all(line.endswith("=") for line in lines_of(".env.example"))


def test_redis_keeps_what_it_accepted() -> None:
    redis = SERVICES["redis"]
    command = " ".join(redis["command"])

    assert "--appendonly yes" in command
    assert "--maxmemory-policy noeviction" in command
    assert "requirepass" in command
    assert volumes("redis") == {"redis-data": "/data"}
    assert "PASSWORD" not in str(redis["healthcheck"])


def test_postgres_keeps_its_data_where_the_image_puts_it() -> None:
    major = int(re.fullmatch(r"postgres:(\d+)-alpine", SERVICES["postgres"]["image"])[1])  # type: ignore[index]

    # Older images declare a volume at …/data; a mount above it is left empty and the data is lost with the container.
    assert major >= 18
    assert volumes("postgres") == {"postgres-data": "/var/lib/postgresql"}


def test_volumes_are_declared() -> None:
    used = {volume for service in SERVICES for volume in volumes(service)}

    assert used == yaml.safe_load(COMPOSE_TEXT)["volumes"].keys()


def test_services_are_watched_and_started_again() -> None:
    for name, service in SERVICES.items():
        assert service["restart"] == "unless-stopped", name
        assert service["healthcheck"]["test"], name


def test_worker_waits_for_its_servers_and_is_confined() -> None:
    worker = SERVICES["worker"]

    assert worker["command"] == ["worker", "run"]
    assert worker["healthcheck"]["test"] == ["CMD", "worker", "check"]
    assert worker["depends_on"] == {
        "redis": {"condition": "service_healthy"},
        "postgres": {"condition": "service_healthy"},
    }
    assert worker["read_only"] is True
    assert worker["cap_drop"] == ["ALL"]
    assert worker["security_opt"] == ["no-new-privileges:true"]
    assert worker["mem_limit"]


def test_image_runs_as_a_numbered_user_and_can_say_how_it_is() -> None:
    final = DOCKERFILE.rpartition("\nFROM ")[2]

    assert re.search(r"^USER [1-9]\d*:[1-9]\d*$", final, re.MULTILINE)
    assert re.search(r'^HEALTHCHECK .*CMD \["worker", "check"\]$', final, re.MULTILINE)
    assert re.search(r'^CMD \["worker", "run"\]$', final, re.MULTILINE)


def test_image_is_built_from_exactly_what_is_let_in() -> None:
    copies = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)
    everything, *rest = lines_of(".dockerignore")

    assert everything == "*"
    assert {line[1:] for line in rest if line.startswith("!")} == {name for copy in copies for name in copy.split()}


# CI


def test_ci_tests_first_and_then_checks() -> None:
    script = ROOT / ".ci" / "run"

    assert os.access(script, os.X_OK)
    assert re.findall(r"^step (.+)$", script.read_text(), re.MULTILINE) == ["make test", "make check"]


def test_ci_runs_on_every_python_that_is_promised() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    job = workflow["jobs"]["run"]
    promised = re.findall(
        r"^Programming Language :: Python :: (3\.\d+)$", "\n".join(PROJECT["classifiers"]), re.MULTILINE
    )

    assert job["strategy"]["matrix"]["python"] == promised
    assert ".ci/run" in [step.get("run") for step in job["steps"]]
    assert workflow["permissions"] == {"contents": "read"}


# The tree


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
    guilty = [name for name in names if unwanted.search((ROOT / name).read_text(errors="replace"))]

    assert guilty == []

"""docker-compose.yml agrees with itself, with the files that it mounts, and with .env.example."""

import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
SECRET = r"\$\{[A-Z_]+:[-?][^}]*\}"


def test_names_that_are_used_are_defined() -> None:
    used = {each for service in SERVICES.values() for each in service.get("depends_on", ())}
    networks = {each for service in SERVICES.values() for each in service.get("networks", ())}
    mounts = [mount.split(":")[0] for service in SERVICES.values() for mount in service.get("volumes", ())]

    assert used <= SERVICES.keys()
    assert networks <= {"default", *COMPOSE["networks"]}
    assert {mount for mount in mounts if not mount.startswith(".")} == COMPOSE["volumes"].keys()
    assert all((ROOT / mount).exists() for mount in mounts if mount.startswith("."))


def test_variables_are_those_of_the_example() -> None:
    example = (ROOT / ".env.example").read_text()

    assert set(re.findall(r"(?<!\$)\$\{([A-Z_]+)", TEXT)) == set(re.findall(r"^#?([A-Z_]+)=", example, re.MULTILINE))


def test_no_password_is_written_down_and_ports_are_published_on_loopback_only() -> None:
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            if re.search("PASSWORD|AUTH|SECRET|TOKEN|KEY", name):
                assert re.fullmatch(SECRET, value), name
            elif "://" in value:
                assert re.match(rf"[a-z]+://[a-z]*:{SECRET}@", value), name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))

"""Whether the Compose profile `monitoring` adds what watches the worker, and takes nothing else along."""

import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
WATCHING = {name: service for name, service in SERVICES.items() if "profiles" in service}


def test_profile_has_prometheus_and_grafana() -> None:
    assert {name: service["profiles"] for name, service in WATCHING.items()} == {
        "prometheus": ["monitoring"],
        "grafana": ["monitoring"],
    }


def test_nothing_that_runs_without_the_profile_needs_it() -> None:
    for name, service in SERVICES.items():
        if name not in WATCHING:
            assert not set(service.get("depends_on", {})) & WATCHING.keys(), name


def test_images_are_pinned_to_a_patch() -> None:
    for name, service in WATCHING.items():
        assert re.fullmatch(r"[a-z]+/[a-z]+:v?\d+\.\d+\.\d+", service["image"]), name


def test_what_watches_is_confined() -> None:
    for name, service in WATCHING.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["mem_limit"], name


def test_what_watches_reaches_neither_redis_nor_postgres() -> None:
    servers = {network for name in ("redis", "postgres") for network in SERVICES[name].get("networks", ["default"])}

    for name, service in WATCHING.items():
        assert not set(service["networks"]) & servers, name
    assert set(SERVICES["worker"]["networks"]) == {"default", "monitoring"}
    assert "monitoring" in COMPOSE["networks"]


def test_what_is_mounted_is_there_and_stays_as_it_is() -> None:
    mounts = [mount for service in WATCHING.values() for mount in service["volumes"] if mount.startswith(".")]

    assert len(mounts) == 3
    for source, _, mode in (mount.split(":") for mount in mounts):
        assert (ROOT / source).is_dir(), source
        assert mode == "ro", source


def test_grafana_has_no_password_of_its_own() -> None:
    environment = SERVICES["grafana"]["environment"]

    # Without the profile nobody needs it, so that it is asked for when Grafana starts.
    assert environment["GF_SECURITY_ADMIN_PASSWORD"] == "${GRAFANA_PASSWORD:-}"
    assert 'test -n "$$GF_SECURITY_ADMIN_PASSWORD" ||' in SERVICES["grafana"]["entrypoint"][-1]
    assert not any(name.startswith("GF_AUTH") for name in environment)


def test_worker_answers_within_its_network() -> None:
    environment = SERVICES["worker"]["environment"]

    assert environment["WORKER_HTTP_HOST"] == "0.0.0.0"  # noqa: S104  # in a container that publishes no port
    assert environment["WORKER_HTTP_PORT"].isdigit()

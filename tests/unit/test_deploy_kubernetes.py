"""The Kubernetes example agrees with itself, with the image and with the worker's settings."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.promql import mistakes
from worker.observability.http import Endpoints
from worker.settings import Settings, variable
from worker.supervisor import MARGIN_SECONDS

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "kubernetes"
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
DEFAULTS = {variable(name): field.default for name, field in Settings.model_fields.items()}
KINDS: dict[str, dict[str, Any]] = {
    each["kind"]: each for path in sorted(FOLDER.glob("*.yaml")) for each in yaml.safe_load_all(path.read_text())
}
DEPLOYMENT, SCALING = KINDS["Deployment"], KINDS["ScaledObject"]["spec"]
LABELS: dict[str, str] = DEPLOYMENT["spec"]["template"]["metadata"]["labels"]
POD: dict[str, Any] = DEPLOYMENT["spec"]["template"]["spec"]
MIGRATION: dict[str, Any] = KINDS["Job"]["spec"]["template"]["spec"]
[WORKER], [MIGRATE] = POD["containers"], MIGRATION["containers"]
ENVIRONMENT = {each["name"]: each.get("value") for each in WORKER["env"]}

pods = pytest.mark.parametrize(("pod", "container"), [(POD, WORKER), (MIGRATION, MIGRATE)], ids=["worker", "migrate"])


def test_the_kustomization_has_all_but_the_migration() -> None:
    files = {path.name for path in FOLDER.glob("*.yaml")} - {"kustomization.yaml", "migrate.yaml"}

    assert set(KINDS["Kustomization"]["resources"]) == files


def test_selectors_select_the_workers_and_not_the_migration() -> None:
    selectors = [
        *(KINDS[kind]["spec"]["selector"] for kind in ("Deployment", "PodDisruptionBudget", "PodMonitor")),
        *(each["labelSelector"] for each in POD["topologySpreadConstraints"]),
    ]

    assert all(selector == {"matchLabels": LABELS} for selector in selectors)
    assert KINDS["Job"]["spec"]["template"]["metadata"]["labels"] != LABELS
    assert SCALING["scaleTargetRef"] == {"name": DEPLOYMENT["metadata"]["name"]}


@pods
def test_a_pod_runs_this_version_with_known_variables_and_secret_addresses(
    pod: dict[str, Any], container: dict[str, Any]
) -> None:
    user = f"{pod['securityContext']['runAsUser']}:{pod['securityContext']['runAsGroup']}"

    assert container["image"] == f"userpost-worker:{VERSION}"
    assert f"\nUSER {user}\n" in (ROOT / "Dockerfile").read_text()
    assert {each["name"] for each in container["env"]} <= DEFAULTS.keys()
    assert all("secretKeyRef" in each["valueFrom"] for each in container["env"] if each["name"].endswith("_URL"))


def test_a_worker_has_the_time_to_drain() -> None:
    grace = "WORKER_SHUTDOWN_GRACE_SECONDS"

    assert POD["terminationGracePeriodSeconds"] > float(ENVIRONMENT.get(grace, DEFAULTS[grace])) + MARGIN_SECONDS


def test_probes_and_scraping_use_the_port_and_paths_that_answer() -> None:
    [port] = WORKER["ports"]
    [endpoint] = KINDS["PodMonitor"]["spec"]["podMetricsEndpoints"]
    probes = [WORKER[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")]

    assert ENVIRONMENT["WORKER_HTTP_PORT"] == str(port["containerPort"])
    assert {probe["port"] for probe in [*probes, endpoint]} == {port["name"]}
    assert all(hasattr(Endpoints, probe["path"].removeprefix("/")) for probe in [*probes, endpoint])
    # Not /readyz: an unreachable server is not a reason to kill every worker.
    assert WORKER["livenessProbe"]["httpGet"]["path"] == "/livez"


def test_the_scaler_selects_a_series_that_exists_of_the_default_queue() -> None:
    [trigger] = SCALING["triggers"]

    assert mistakes(trigger["metadata"]["query"]) == []
    assert f'queue="{DEFAULTS["WORKER_QUEUE"]}"' in trigger["metadata"]["query"]
    assert all(isinstance(value, str) for value in trigger["metadata"].values()), "KEDA takes text only"


def test_a_worker_is_always_left_and_all_of_them_fit_into_the_database() -> None:
    workers = SCALING["maxReplicaCount"] + DEPLOYMENT["spec"]["strategy"]["rollingUpdate"]["maxSurge"]

    assert 1 <= SCALING["minReplicaCount"] <= SCALING["fallback"]["replicas"] <= SCALING["maxReplicaCount"]
    assert KINDS["PodDisruptionBudget"]["spec"]["maxUnavailable"] < SCALING["minReplicaCount"]
    # By default PostgreSQL accepts 100 connections and keeps three of them for superusers.
    assert workers * int(ENVIRONMENT["WORKER_CONCURRENCY"]) <= 97

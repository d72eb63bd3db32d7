"""Whether the Kubernetes example agrees with itself, with the image and with the worker's settings."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.promql import mistakes, selected
from worker.observability.http import Endpoints
from worker.settings import Settings, variable
from worker.supervisor import MARGIN_SECONDS

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "kubernetes"
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
DEFAULTS = {variable(name): field.default for name, field in Settings.model_fields.items()}


def manifests() -> dict[str, dict[str, Any]]:
    found = [each for path in sorted(FOLDER.glob("*.yaml")) for each in yaml.safe_load_all(path.read_text())]
    assert len({each["kind"] for each in found}) == len(found)
    return {each["kind"]: each for each in found}


KINDS = manifests()
DEPLOYMENT = KINDS["Deployment"]
POD: dict[str, Any] = DEPLOYMENT["spec"]["template"]["spec"]
LABELS: dict[str, str] = DEPLOYMENT["spec"]["template"]["metadata"]["labels"]
[WORKER] = POD["containers"]
MIGRATION: dict[str, Any] = KINDS["Job"]["spec"]["template"]["spec"]
[MIGRATE] = MIGRATION["containers"]
ENVIRONMENT = {each["name"]: each for each in WORKER["env"]}
SCALING: dict[str, Any] = KINDS["ScaledObject"]["spec"]

pods = pytest.mark.parametrize(("pod", "container"), [(POD, WORKER), (MIGRATION, MIGRATE)], ids=["worker", "migrate"])


def test_kustomization_has_all_but_the_migration() -> None:
    files = {path.name for path in FOLDER.glob("*.yaml")} - {"kustomization.yaml", "migrate.yaml"}

    assert set(KINDS["Kustomization"]["resources"]) == files


def test_manifests_name_no_namespace() -> None:
    assert all("namespace" not in each.get("metadata", {}) for each in KINDS.values())


def test_whatever_selects_workers_selects_these() -> None:
    selectors = [
        DEPLOYMENT["spec"]["selector"],
        KINDS["PodDisruptionBudget"]["spec"]["selector"],
        KINDS["PodMonitor"]["spec"]["selector"],
        *(each["labelSelector"] for each in POD["topologySpreadConstraints"]),
    ]

    assert all(selector == {"matchLabels": LABELS} for selector in selectors)
    assert KINDS["Job"]["spec"]["template"]["metadata"]["labels"] != LABELS
    assert SCALING["scaleTargetRef"] == {"name": DEPLOYMENT["metadata"]["name"]}


@pods
def test_pod_runs_the_image_of_this_version_confined(pod: dict[str, Any], container: dict[str, Any]) -> None:
    assert container["image"] == f"userpost-worker:{VERSION}"
    user, group = pod["securityContext"]["runAsUser"], pod["securityContext"]["runAsGroup"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert f"\nUSER {user}:{group}\n" in (ROOT / "Dockerfile").read_text()
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["resources"]["requests"].keys() == {"cpu", "memory"}
    assert "memory" in container["resources"]["limits"]


@pods
def test_no_service_of_the_cluster_sets_a_variable(pod: dict[str, Any], container: dict[str, Any]) -> None:
    # Kubernetes sets WORKER_HTTP_PORT=tcp://… for a Service named worker-http, unless it is told not to.
    assert pod["enableServiceLinks"] is False
    assert {each["name"] for each in container["env"]} <= DEFAULTS.keys()


@pods
def test_addresses_with_passwords_come_from_a_secret(pod: dict[str, Any], container: dict[str, Any]) -> None:
    addresses = [each for each in container["env"] if each["name"].endswith("_URL")]

    assert addresses
    for each in addresses:
        assert each.keys() == {"name", "valueFrom"}
        assert each["valueFrom"] == {"secretKeyRef": {"name": "userpost-worker", "key": each["name"]}}


def test_workers_leave_the_tables_to_the_migration() -> None:
    assert WORKER["command"] == ["worker", "run"]
    assert MIGRATE["command"] == ["worker", "migrate"]
    assert ENVIRONMENT["WORKER_CREATE_TABLES"]["value"] == "false"
    assert MIGRATION["restartPolicy"] == "Never"


def test_worker_has_the_time_to_drain() -> None:
    grace_seconds = ENVIRONMENT.get("WORKER_SHUTDOWN_GRACE_SECONDS", {}).get("value")
    grace_seconds = DEFAULTS["WORKER_SHUTDOWN_GRACE_SECONDS"] if grace_seconds is None else float(grace_seconds)

    assert POD["terminationGracePeriodSeconds"] > grace_seconds + MARGIN_SECONDS


def test_probes_ask_the_port_that_answers() -> None:
    [port] = WORKER["ports"]
    probes = {name: WORKER[f"{name}Probe"] for name in ("startup", "liveness", "readiness")}

    assert ENVIRONMENT["WORKER_HTTP_HOST"]["value"] == "0.0.0.0"  # noqa: S104  # the kubelet comes from outside
    assert ENVIRONMENT["WORKER_HTTP_PORT"]["value"] == str(port["containerPort"])
    assert {probe["httpGet"]["port"] for probe in probes.values()} == {port["name"]}
    assert {name: probe["httpGet"]["path"] for name, probe in probes.items()} == {
        "startup": "/livez",
        "liveness": "/livez",  # not /readyz: a server that is away is no reason to kill every worker
        "readiness": "/readyz",
    }
    assert all(hasattr(Endpoints, probe["httpGet"]["path"].removeprefix("/")) for probe in probes.values())


def test_metrics_are_scraped_from_the_same_port() -> None:
    [endpoint] = KINDS["PodMonitor"]["spec"]["podMetricsEndpoints"]
    prometheus = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text())

    assert endpoint["port"] == WORKER["ports"][0]["name"]
    assert endpoint["path"] == "/metrics"
    assert "honorLabels" not in endpoint
    assert LABELS[KINDS["PodMonitor"]["spec"]["jobLabel"]] == prometheus["scrape_configs"][0]["job_name"]


def test_workers_are_scaled_by_the_age_of_the_oldest_due_job() -> None:
    [trigger] = SCALING["triggers"]
    about = trigger["metadata"]
    [asked] = selected(about["query"])

    assert trigger["type"] == "prometheus"
    assert asked.name == "worker_queue_oldest_due_seconds"
    assert mistakes(about["query"]) == []
    assert f'queue="{DEFAULTS["WORKER_QUEUE"]}"' in about["query"]
    assert all(isinstance(value, str) for value in about.values()), "KEDA takes text only"
    assert float(about["activationThreshold"]) < float(about["threshold"])
    assert about["ignoreNullValues"] == "false"
    assert trigger["metricType"] == "AverageValue"


def test_there_is_always_a_worker_that_tells_the_age() -> None:
    assert "replicas" not in DEPLOYMENT["spec"]
    assert 1 <= SCALING["minReplicaCount"] <= SCALING["fallback"]["replicas"] <= SCALING["maxReplicaCount"]
    assert KINDS["PodDisruptionBudget"]["spec"]["maxUnavailable"] < SCALING["minReplicaCount"]


def test_all_workers_fit_into_the_database() -> None:
    workers = SCALING["maxReplicaCount"] + DEPLOYMENT["spec"]["strategy"]["rollingUpdate"]["maxSurge"]

    # By default PostgreSQL lets a hundred in, and keeps three of these places for superusers.
    assert workers * int(ENVIRONMENT["WORKER_CONCURRENCY"]["value"]) <= 97

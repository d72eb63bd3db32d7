"""The Grafana dashboard selects series that exist, shows all of them, and is found by Grafana."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.promql import metric_of, mistakes, selected
from worker.observability.metrics import TABLE

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "grafana"
DASHBOARD_TEXT = (FOLDER / "dashboards" / "worker.json").read_text()
DASHBOARD = json.loads(DASHBOARD_TEXT)
TARGETS = {
    f"{panel['title']} {target['refId']}": target
    for panel in DASHBOARD["panels"]
    for target in panel.get("targets", ())
}

every_target = pytest.mark.parametrize("target", TARGETS.values(), ids=list(TARGETS))


def expression_of(target: dict[str, Any]) -> str:
    """The expression as Grafana sends it."""
    return str(target["expr"]).replace("$__rate_interval", "1m")


@every_target
def test_a_panel_selects_series_of_one_queue_that_exist(target: dict[str, Any]) -> None:
    assert mistakes(expression_of(target)) == []
    assert all("queue" in each.fixed for each in selected(expression_of(target)))


@every_target
def test_a_legend_names_only_labels_that_the_series_keep(target: dict[str, Any]) -> None:
    by = re.search(r"\bby \(([\w, ]+)\)", target["expr"])  # the outermost
    kept = set(by[1].split(", ")) if by else set()

    assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= kept


def test_every_metric_is_shown() -> None:
    shown = {metric_of(each.name) for target in TARGETS.values() for each in selected(expression_of(target))}

    assert shown == TABLE.keys()


def test_variables_that_are_used_are_defined_and_no_other() -> None:
    used = set(re.findall(r"\$\{?(?!__)(\w+)", DASHBOARD_TEXT))

    assert used == {variable["name"] for variable in DASHBOARD["templating"]["list"]}


def test_grafana_finds_its_dashboard_and_prometheus() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    mounts = {target: source for source, target, _ in (text.split(":") for text in services["grafana"]["volumes"][:2])}
    [provider] = yaml.safe_load((FOLDER / "provisioning/dashboards/worker.yml").read_text())["providers"]
    [source] = yaml.safe_load((FOLDER / "provisioning/datasources/prometheus.yml").read_text())["datasources"]

    assert mounts["/etc/grafana/provisioning"] == "./deploy/grafana/provisioning"
    assert mounts[provider["options"]["path"]] == "./deploy/grafana/dashboards"
    assert re.fullmatch(r"http://(\w+):\d+", source["url"])[1] in services  # type: ignore[index]

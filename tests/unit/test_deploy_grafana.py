"""Whether the dashboard asks for series that there are, shows all of them, and is found by Grafana."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from tests.unit.promql import HISTOGRAM_ENDS, mistakes, selected
from worker.observability.metrics import TABLE

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "grafana"
DASHBOARD = json.loads((FOLDER / "dashboards" / "worker.json").read_text())
VARIABLES = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
TARGETS = [
    pytest.param(target, id=f"{panel['title']} {target['refId']}") for panel in PANELS for target in panel["targets"]
]
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]


def provisioned(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((FOLDER / "provisioning" / name).read_text())
    return loaded


def as_asked(expression: str) -> str:
    """The expression as Grafana sends it."""
    return expression.replace("$__rate_interval", "1m")


def strings(value: object) -> Iterator[str]:
    """Every text in a JSON document."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from strings(each)


@pytest.mark.parametrize("target", TARGETS)
def test_panel_asks_for_what_the_worker_tells_of_one_queue(target: dict[str, Any]) -> None:
    expression = as_asked(target["expr"])

    assert mistakes(expression) == []
    assert all("queue" in each.fixed for each in selected(expression))


@pytest.mark.parametrize("target", TARGETS)
def test_legend_names_only_labels_that_are_left(target: dict[str, Any]) -> None:
    by = re.search(r"\bby \(([\w, ]+)\)", target["expr"])  # the outermost
    left = set(by[1].split(", ")) if by else set()

    assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= left


def test_every_metric_is_shown() -> None:
    asked = {each.name for target in TARGETS for each in selected(as_asked(target.values[0]["expr"]))}  # type: ignore[index]
    shown = {name for name in TABLE if asked & {name, *(name + end for end in HISTOGRAM_ENDS)}}

    assert shown == TABLE.keys()


def test_panels_lie_beside_one_another() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert max(x for x, _ in cells) < 24, panel["title"]
        assert not cells & taken, panel["title"]
        taken |= cells


def test_panels_say_what_they_show_and_whom_they_ask() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]

    assert len(ids) == len(set(ids))
    for panel in PANELS:
        assert panel["description"].endswith("."), panel["title"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}, panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]


def test_variables_are_those_that_are_used() -> None:
    used = {name for text in strings(DASHBOARD) for name in re.findall(r"\$\{?(?!__)(\w+)", text)}

    assert used == VARIABLES.keys()
    asked = re.fullmatch(r"label_values\((\w+), (\w+)\)", VARIABLES["queue"]["query"]["query"])
    assert asked is not None
    assert asked[1] in TABLE
    assert asked[2] == "queue"


def test_alerts_are_drawn_in() -> None:
    [alerts] = DASHBOARD["annotations"]["list"]

    assert [each.name for each in selected(alerts["expr"])] == ["ALERTS"]


def test_grafana_asks_the_prometheus_of_the_same_profile() -> None:
    [source] = provisioned("datasources/prometheus.yml")["datasources"]
    scrape = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text())
    url = urlsplit(source["url"])

    assert source["type"] == "prometheus"
    assert url.hostname in SERVICES
    assert SERVICES[str(url.hostname)]["ports"][0].endswith(f":{url.port}")
    assert source["jsonData"]["timeInterval"] == scrape["global"]["scrape_interval"]


def test_grafana_finds_the_dashboard() -> None:
    mounted = {target: source for source, target, _ in (text.split(":") for text in SERVICES["grafana"]["volumes"][:2])}
    [provider] = provisioned("dashboards/worker.yml")["providers"]

    assert mounted["/etc/grafana/provisioning"] == "./deploy/grafana/provisioning"
    assert mounted[provider["options"]["path"]] == "./deploy/grafana/dashboards"
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == f"{provider['options']['path']}/worker.json"

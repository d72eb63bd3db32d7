"""Whether the alert rules ask for series that there are, join them as they must be joined, and say what to do.

What the rules answer on made-up series is in deploy/prometheus/alerts_test.yml, for promtool.
"""

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from tests.unit.promql import mistakes, selected
from worker.observability.metrics import TABLE

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "prometheus"
RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"] for rule in group["rules"]
]
CONFIG = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
CASES: list[dict[str, Any]] = [
    case
    for test in yaml.safe_load((FOLDER / "alerts_test.yml").read_text())["tests"]
    for case in test["alert_rule_test"]
]
[SCRAPE] = CONFIG["scrape_configs"]

every_rule = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])


def kebab(name: str) -> str:
    """The name of an alert as its section has it.

    >>> kebab("WorkerQueueOld")
    'worker-queue-old'
    """
    return re.sub(r"(?<!^)(?=[A-Z])", "-", name).lower()


@every_rule
def test_rule_asks_for_what_the_worker_tells(rule: dict[str, Any]) -> None:
    if [each.name for each in selected(rule["expr"])] == ["up"]:
        assert rule["expr"] == f'up{{job="{SCRAPE["job_name"]}"}} == 0'
    else:
        assert mistakes(rule["expr"]) == []


def test_every_alert_has_its_section_in_the_runbook_and_every_section_its_alert() -> None:
    sections = re.findall(r"^### Alert: (.+)$", (ROOT / "docs" / "operations.md").read_text(), re.MULTILINE)

    assert {section.replace(" ", "-") for section in sections} == {kebab(rule["alert"]) for rule in RULES}


@every_rule
def test_rule_says_what_it_is_and_where_to_read_on(rule: dict[str, Any]) -> None:
    assert rule.keys() == {"alert", "expr", "for", "labels", "annotations"}
    assert promql_parser.parse_duration(rule["for"]) >= timedelta(minutes=1)
    assert rule["labels"].keys() == {"severity"}
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}
    assert rule["annotations"]["runbook_url"] == f"docs/operations.md#alert-{kebab(rule['alert'])}"


@every_rule
def test_rule_names_only_labels_that_are_left(rule: dict[str, Any]) -> None:
    left = frozenset[str]().union(*(each.by for each in selected(rule["expr"])))
    if left == frozenset():
        left = frozenset({"job", "instance"})  # of `up`

    named = set(re.findall(r"\$labels\.(\w+)", " ".join(rule["annotations"].values())))

    assert named <= left


def test_names_of_alerts_are_their_own() -> None:
    names = [rule["alert"] for rule in RULES]

    assert len(names) == len(set(names))
    assert all(name.startswith("Worker") for name in names)


def test_every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_is_silent() -> None:
    names = {rule["alert"] for rule in RULES}

    assert {case["alertname"] for case in CASES if case.get("exp_alerts")} == names
    assert {case["alertname"] for case in CASES if not case.get("exp_alerts")} == names


def test_cases_expect_what_the_rules_say() -> None:
    rules = {rule["alert"]: rule for rule in RULES}
    for name, expected in ((case["alertname"], alert) for case in CASES for alert in case.get("exp_alerts", [])):
        assert expected["exp_labels"]["severity"] == rules[name]["labels"]["severity"]
        assert expected["exp_annotations"].keys() == rules[name]["annotations"].keys()
        for key, text in rules[name]["annotations"].items():
            written = ".+".join(re.escape(part) for part in re.split(r"\{\{.*?\}\}", text))
            assert re.fullmatch(written, expected["exp_annotations"][key]), (name, key)


def test_rules_that_are_named_are_there() -> None:
    assert [(FOLDER / name).exists() for name in CONFIG["rule_files"]] == [True]
    assert yaml.safe_load((FOLDER / "alerts_test.yml").read_text())["rule_files"] == CONFIG["rule_files"]


def test_no_series_has_a_label_that_prometheus_gives_itself() -> None:
    """It would be renamed to `exported_…`, and no rule and no panel would find it."""
    assert not {"job", "instance"} & {label for series in TABLE.values() for label in series.labels}


def test_every_container_of_the_worker_is_scraped() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    [names] = SCRAPE["dns_sd_configs"]

    assert names["names"] == ["worker"]
    assert names["type"] == "A"
    assert str(names["port"]) == services["worker"]["environment"]["WORKER_HTTP_PORT"]
    assert "ports" not in services["worker"], "a published port cannot be scaled"
    assert set(services["prometheus"]["networks"]) <= set(services["worker"]["networks"])

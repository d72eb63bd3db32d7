"""The alert rules select series that exist, and each has a section in the runbook and cases for promtool.

What the rules answer on made-up series is in deploy/prometheus/alerts_test.yml, for promtool.
"""

import re
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
NAMES = [rule["alert"] for rule in RULES]
CONFIG = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
CASES: list[dict[str, Any]] = [
    case
    for test in yaml.safe_load((FOLDER / "alerts_test.yml").read_text())["tests"]
    for case in test["alert_rule_test"]
]

every_rule = pytest.mark.parametrize("rule", RULES, ids=NAMES)


@every_rule
def test_a_rule_selects_series_that_exist(rule: dict[str, Any]) -> None:
    if "up{" in rule["expr"] and [each.name for each in selected(rule["expr"])] == ["up"]:
        [scrape] = CONFIG["scrape_configs"]
        assert f'job="{scrape["job_name"]}"' in rule["expr"]
    else:
        assert mistakes(rule["expr"]) == []
    promql_parser.parse_duration(rule["for"])


@every_rule
def test_a_rule_names_only_labels_that_its_series_keep(rule: dict[str, Any]) -> None:
    kept = {label for each in selected(rule["expr"]) for label in each.by} or {"job", "instance"}  # of `up`

    assert set(re.findall(r"\$labels\.(\w+)", " ".join(rule["annotations"].values()))) <= kept


def test_every_alert_has_its_section_in_the_runbook_and_every_section_its_alert() -> None:
    sections = re.findall(r"^### Alert: (.+)$", (ROOT / "docs" / "operations.md").read_text(), re.MULTILINE)

    assert sorted(sections) == sorted(NAMES)
    assert {rule["annotations"]["runbook_url"] for rule in RULES} == {
        f"docs/operations.md#alert-{name.lower()}" for name in NAMES
    }


def test_every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_is_silent() -> None:
    assert {case["alertname"] for case in CASES if case.get("exp_alerts")} == set(NAMES)
    assert {case["alertname"] for case in CASES if not case.get("exp_alerts")} == set(NAMES)


def test_cases_expect_the_texts_of_the_rules() -> None:
    annotations = {rule["alert"]: rule["annotations"] for rule in RULES}
    for name, expected in ((case["alertname"], alert) for case in CASES for alert in case.get("exp_alerts", [])):
        for key, text in annotations[name].items():
            written = ".+".join(re.escape(part) for part in re.split(r"\{\{.*?\}\}", text))
            assert re.fullmatch(written, expected["exp_annotations"][key]), (name, key)


def test_rule_files_exist() -> None:
    assert all((FOLDER / name).exists() for name in CONFIG["rule_files"])


def test_no_series_has_a_label_that_prometheus_sets_itself() -> None:
    """It would be renamed to `exported_…`, and no rule and no panel would find it."""
    assert not {"job", "instance"} & {label for series in TABLE.values() for label in series.labels}

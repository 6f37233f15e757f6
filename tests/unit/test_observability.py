"""Rules, runbooks and dashboards agree with each other, and with the metrics that the code has."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from docs.generate import GENERATED
from pipelined.config import WORKER_TYPES
from pipelined.stats.disks import DISK_METRICS
from pipelined.stats.registry import METRICS, Kind
from pipelined.stats.rendering import SUPERVISOR_METRICS
from pipelined.stats.slots import WorkerState

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "observability" / "prometheus"
RULES = {path.name: path.read_text() for path in sorted((PROMETHEUS / "rules").glob("*.yml"))}
TESTS = {path.name: path.read_text() for path in sorted((PROMETHEUS / "tests").glob("*.yml"))}
BOARDS = {name: render() for name, render in GENERATED.items() if name.startswith("observability/grafana/")}
RUNBOOKS = {path.stem: path.read_text() for path in sorted((ROOT / "docs" / "runbooks").glob("*.md"))}

#: The text of each alert, from its name up to the next rule.
ALERTS = {
    found[1]: found[2]
    for text in RULES.values()
    for found in re.finditer(r"- alert: (\w+)\n(.*?)(?=\n +- (?:alert|record|name):|\Z)", text, re.DOTALL)
}
RECORDED = {name for text in RULES.values() for name in re.findall(r"- record: (\S+)", text)}


def known_names() -> set[str]:
    """Every name under which a sample can be found."""
    names = {name for name, *_ in (*SUPERVISOR_METRICS, *DISK_METRICS)}
    for metric in METRICS:
        histogram = metric.kind is Kind.HISTOGRAM
        names |= {metric.name + end for end in ("_bucket", "_sum", "_count")} if histogram else {metric.name}
    return names


def label_values() -> dict[str, set[str]]:
    """What the labels of our metrics may be."""
    values: dict[str, set[str]] = {"worker": set(WORKER_TYPES), "state": {s.name for s in WorkerState}}
    values["folder"] = {"state", "cache", "files", "tables"}
    for metric in METRICS:
        values.setdefault(metric.label, set()).update(metric.values)
    return values


def queries() -> Iterator[tuple[str, str]]:
    """Everything that is asked of Prometheus, and where."""
    yield from RULES.items()
    for name, text in BOARDS.items():
        for panel in json.loads(text)["panels"]:
            for target in panel.get("targets", ()):
                yield f"{name}: {panel['title']}", target["expr"]


def test_there_are_rules_and_dashboards_to_look_at() -> None:
    assert len(ALERTS) > 30
    assert len(BOARDS) == 2
    assert sum(1 for _ in queries()) > 40


@pytest.mark.parametrize(("where", "text"), [*queries(), *TESTS.items()])
def test_every_metric_that_is_named_exists(where: str, text: str) -> None:
    named = set(re.findall(r"\bpipelined_\w+", text)) | set(re.findall(r"\bpipelined:[\w:]+", text))
    assert named - known_names() - RECORDED == set(), where


@pytest.mark.parametrize(("where", "text"), list(queries()))
def test_every_value_of_a_label_that_is_named_exists(where: str, text: str) -> None:
    known = label_values()
    for label, wanted in re.findall(r'(\w+)(?:=|!=|=~|!~)"([^"$]+)"', text):
        if label in known:
            assert set(wanted.split("|")) <= known[label], (where, label)


def test_a_recorded_rule_is_used() -> None:
    for name in RECORDED:
        uses = sum(text.count(name) for _, text in queries())
        assert uses > 1 or ":p50_" in name or name == "pipelined:records_done:rate5m", name


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_says_how_bad_it_is_what_it_is_and_what_to_read(alert: str) -> None:
    text = ALERTS[alert]
    assert re.search(r"severity: (page|ticket)\n", text)
    assert re.search(r'summary: ".{20,}"\n', text)
    assert re.search(r'description: ".{40,}\."\n', text)
    assert f"runbook_url: docs/runbooks/{alert}.md" in text
    assert re.search(r"expr: \S", text)


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    assert set(RUNBOOKS) == set(ALERTS)


@pytest.mark.parametrize("name", RUNBOOKS)
def test_a_runbook_is_whole_and_says_the_same_severity(name: str) -> None:
    text = RUNBOOKS[name]
    assert text.startswith(f"# {name}\n")
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert headings == ["What it means", "What to look at", "What to do", "Whom to wake"]
    severity = re.search(r"severity: (\w+)", ALERTS[name])
    assert severity is not None
    assert f"Severity: **{severity[1]}**" in text
    (rules,) = re.findall(r"observability/prometheus/rules/(\w+\.yml)", text)
    assert f"- alert: {name}\n" in RULES[rules]


def test_every_alert_is_tested_to_fire_and_to_stay_silent_and_nothing_else_is() -> None:
    fires, silent = [], []
    for name, text in TESTS.items():
        rules = RULES[name.replace("_test", "")]
        groups = re.split(r"^  - interval:", text, flags=re.MULTILINE)[1:]
        for group in groups:
            found = re.findall(r'ALERTS\{alertname="(\w+)",alertstate="firing"\}', group)
            quiet = re.findall(r"- alertname: (\w+)\n +eval_time: \w+\n +exp_alerts: \[\]\n", group + "\n")
            assert len(found) + len(quiet) == 1, group
            assert "value: 1" in group or quiet
            assert f"- alert: {(found + quiet)[0]}\n" in rules
            fires += found
            silent += quiet
    assert sorted(fires) == sorted(silent) == sorted(ALERTS)


@pytest.mark.parametrize("name", BOARDS)
def test_a_panel_has_a_title_a_unit_and_a_description_and_asks_for_the_chosen_hosts(name: str) -> None:
    board = json.loads(BOARDS[name])
    assert not board["editable"]
    panels = [panel for panel in board["panels"] if panel["type"] != "row"]
    assert len({panel["title"] for panel in panels}) == len(panels)
    for panel in panels:
        assert panel["description"].endswith((".", ".md")), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["targets"], panel["title"]
        for target in panel["targets"]:
            assert 'job=~"$job"' in target["expr"], panel["title"]
            assert "pipelined:" in target["expr"] or 'instance=~"$instance"' in target["expr"]
            assert "$of" not in target["expr"]
            assert "rate(" not in target["expr"] or "[$__rate_interval]" in target["expr"]
        for runbook in re.findall(r"docs/runbooks/(\w+)\.md", panel["description"]):
            assert runbook in RUNBOOKS
    variables = {variable["name"]: variable for variable in board["templating"]["list"]}
    assert set(variables) == {"datasource", "job", "instance"}
    assert all(
        variables[name]["multi"] and variables[name]["allValue"] == ".+" for name in ("job", "instance")
    )


@pytest.mark.parametrize("name", BOARDS)
def test_no_two_panels_lie_on_each_other(name: str) -> None:
    taken: dict[tuple[int, int], Any] = {}
    for panel in json.loads(BOARDS[name])["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in taken, (panel["title"], taken.get((x, y)))
                taken[x, y] = panel["title"]


def test_a_dashboard_is_the_same_each_time_it_is_made() -> None:
    assert {name: GENERATED[name]() for name in BOARDS} == BOARDS

"""Prometheus's own tool on our rules: each file is valid, each alert fires when it should, and only then."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

import realparts

PROMETHEUS = Path(__file__).parents[2] / "observability" / "prometheus"


@pytest.fixture(autouse=True)
def _promtool() -> None:
    realparts.require("promtool", realparts.command_missing("promtool"))


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["promtool", *map(str, arguments)], capture_output=True, text=True, timeout=200, check=False
    )


@pytest.mark.parametrize("rules", sorted((PROMETHEUS / "rules").glob("*.yml")), ids=lambda path: path.stem)
def test_a_file_of_rules_is_valid(rules: Path) -> None:
    told = promtool("check", "rules", "--lint=all", "--lint-fatal", rules)
    assert told.returncode == 0, told.stdout + told.stderr
    assert "SUCCESS" in told.stdout


@pytest.mark.parametrize("tests", sorted((PROMETHEUS / "tests").glob("*.yml")), ids=lambda path: path.stem)
def test_each_alert_fires_when_it_should_and_stays_silent_otherwise(tests: Path) -> None:
    told = promtool("test", "rules", tests)
    assert told.returncode == 0, told.stdout + told.stderr
    assert "SUCCESS" in told.stdout


def test_a_rule_that_is_wrong_would_be_found(tmp_path: Path) -> None:
    tests = (PROMETHEUS / "tests" / "workers_test.yml").read_text()
    rules = (PROMETHEUS / "rules" / "workers.yml").read_text()
    broken = rules.replace('pipelined_worker_state{state="FATAL"} == 1', "pipelined_worker_state == 9")
    assert broken != rules
    (tmp_path / "rules.yml").write_text(broken)
    (tmp_path / "test.yml").write_text(tests.replace("../rules/workers.yml", "rules.yml"))
    told = promtool("test", "rules", tmp_path / "test.yml")
    assert told.returncode == 1
    assert "WorkerGivenUp" in told.stdout + told.stderr


def test_the_example_of_a_configuration_is_valid() -> None:
    told = promtool("check", "config", "--syntax-only", PROMETHEUS / "prometheus.yml")
    assert told.returncode == 0, told.stdout + told.stderr

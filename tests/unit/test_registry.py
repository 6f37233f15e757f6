from __future__ import annotations

import re

import pytest

from pipelined.errors import Category
from pipelined.stats import registry
from pipelined.stats.registry import METRICS, Kind, Metric
from pipelined.stats.rendering import SUPERVISOR_METRICS
from pipelined.stats.slots import Child

UNITS = ("_seconds", "_bytes", "_records", "_milliseconds", "_ids")


def test_names_are_unique_and_follow_prometheus() -> None:
    names = [metric.name for metric in METRICS] + [name for name, *_ in SUPERVISOR_METRICS]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"pipelined(_[a-z]+)+", name) for name in names)


@pytest.mark.parametrize("metric", METRICS, ids=lambda m: m.name)
def test_each_metric_is_declared_whole(metric: Metric) -> None:
    assert metric.name.endswith("_total") is (metric.kind is Kind.COUNTER)
    assert metric.help.endswith(".")
    assert metric.remedy.endswith("."), "what to do about it"
    assert bool(metric.label) is bool(metric.values)
    assert len(set(metric.values)) == len(metric.values)
    assert all(re.fullmatch(r"[a-z_]+", value) for value in metric.values)
    assert bool(metric.buckets) is (metric.kind is Kind.HISTOGRAM)
    assert sorted(set(metric.buckets)) == list(metric.buckets)
    assert not (metric.label and metric.kind is Kind.HISTOGRAM)
    if metric.kind is Kind.HISTOGRAM:
        assert metric.name.endswith(UNITS)


def test_every_category_of_failure_is_a_value_of_the_failure_metrics() -> None:
    assert set(registry.FAILURES.values) == set(registry.DEAD_LETTERS.values) == set(Category)


def test_the_layout_has_a_number_that_changes_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    before = registry.schema_hash()
    assert 0 <= before < 1 << 63
    assert registry.schema_hash() == before
    monkeypatch.setattr(registry, "METRICS", METRICS[:-1])
    assert registry.schema_hash() != before


def test_every_metric_has_words_of_its_own() -> None:
    memory = bytearray(4096)
    child = Child(memoryview(memory))
    written = 0
    for metric in METRICS:
        if metric.kind is Kind.COUNTER:
            for value in metric.values or ("",):
                child.add(metric, 3, value)
                written += 1
        elif metric.kind is Kind.GAUGE:
            child.set(metric, 3.0)
            written += 1
        else:
            for bucket in (*metric.buckets, metric.buckets[-1] + 1):
                child.observe(metric, bucket)
                written += 1
            written += 1
    words = memoryview(memory).cast("Q")
    assert sum(1 for word in words if word) == written == sum(metric.words for metric in METRICS)

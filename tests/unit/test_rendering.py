from __future__ import annotations

import pytest
from prometheus_client import generate_latest
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.parser import text_string_to_metric_families

from pipelined import __version__
from pipelined.stats import registry as metrics
from pipelined.stats.registry import METRICS, Kind, Metric
from pipelined.stats.rendering import SUPERVISOR_METRICS, registry_of
from pipelined.stats.slots import SharedStats, WorkerState

Sample = tuple[str, dict[str, str], float]


@pytest.fixture
def stats() -> SharedStats:
    made = SharedStats({"download": 2, "event-writer": 1})
    for slot in made.slots:
        slot.child.begin(100 + slot.index)
    return made


def families(stats: SharedStats) -> dict[str, Family]:
    text = generate_latest(registry_of(stats)).decode()
    return {family.name: family for family in text_string_to_metric_families(text)}


def samples(stats: SharedStats, name: str) -> dict[tuple[str, ...], float]:
    """The samples of that name: the values of their labels, worker and index first, and their number."""
    found = {}
    for family in families(stats).values():
        for sample in family.samples:
            if sample.name == name:
                labels = dict(sample.labels)
                who = [labels.pop(key) for key in ("worker", "index") if key in labels]
                found[(*who, *labels.values())] = sample.value
    return found


@pytest.mark.parametrize("metric", METRICS, ids=lambda m: m.name)
def test_every_declared_metric_is_rendered_for_each_worker_with_its_label(
    stats: SharedStats, metric: Metric
) -> None:
    family = families(stats)[metric.name.removesuffix("_total")]
    assert family.type == metric.kind
    assert family.documentation == metric.help
    if metric.kind is Kind.HISTOGRAM:
        own = {("le", str(bound)) for bound in metric.buckets} | {("le", "+Inf")}
        name = metric.name + "_bucket"
    else:
        own = {(metric.label, value) for value in metric.values}
        name = metric.name
    workers = {("download", "0"), ("download", "1"), ("event-writer", "0")}
    found = [sample for sample in family.samples if sample.name == name]
    for sample in found:
        labels = dict(sample.labels)
        assert (labels.pop("worker"), labels.pop("index")) in workers
        assert set(labels.items()) <= own
        assert len(labels) == bool(own)
    assert len(found) == len(workers) * max(1, len(own))


def test_nothing_is_rendered_that_is_not_declared(stats: SharedStats) -> None:
    declared = [metric.name for metric in METRICS] + [name for name, *_ in SUPERVISOR_METRICS]
    assert set(families(stats)) == {name.removesuffix("_total") for name in declared}


def test_counters_and_gauges_have_the_numbers_of_their_slot(stats: SharedStats) -> None:
    child = stats.slot("download", 1).child
    child.add(metrics.RECORDS_IN, 5)
    child.add(metrics.RECORDS_DONE, 3, "dead")
    child.set(metrics.LAST_PROGRESS, 1767622951.48)
    assert samples(stats, "pipelined_records_in_total") == {
        ("download", "0"): 0,
        ("download", "1"): 5,
        ("event-writer", "0"): 0,
    }
    assert samples(stats, "pipelined_records_done_total")["download", "1", "dead"] == 3
    assert samples(stats, "pipelined_last_progress_timestamp_seconds")["download", "1"] == 1767622951.48


def test_the_buckets_of_a_histogram_are_cumulative_and_fit_its_count_and_sum(stats: SharedStats) -> None:
    child = stats.slot("download", 0).child
    for value in (1, 5, 5, 700, 99_999):
        child.observe(metrics.BATCH_RECORDS, value)
    found = samples(stats, "pipelined_commit_records_bucket")
    buckets = {bound: count for (*who, bound), count in found.items() if who == ["download", "0"]}
    assert buckets["1.0"] == 1
    assert buckets["10.0"] == 3
    assert buckets["1000.0"] == 4
    assert buckets["50000.0"] == 4
    assert buckets["+Inf"] == 5
    assert samples(stats, "pipelined_commit_records_count")["download", "0"] == 5
    assert samples(stats, "pipelined_commit_records_sum")["download", "0"] == 100_710


def test_the_supervisors_view_is_rendered_with_it(stats: SharedStats) -> None:
    slot = stats.slot("download", 0)
    slot.child.ready()
    slot.parent.write(state=WorkerState.RUNNING, pid=100, restarts=2, last_exit=0, since=1.0, next_try=0.0)
    stats.slot("download", 1).child.ready()  # of a process that is gone
    states = samples(stats, "pipelined_worker_state")
    assert len(states) == 3 * len(WorkerState)
    assert {key for key, value in states.items() if value} == {
        ("download", "0", "RUNNING"),
        ("download", "1", "STOPPED"),
        ("event-writer", "0", "STOPPED"),
    }
    assert samples(stats, "pipelined_worker_restarts_total")["download", "0"] == 2
    assert samples(stats, "pipelined_worker_starts_total")["download", "0"] == 1
    ready = samples(stats, "pipelined_worker_ready")
    assert (ready["download", "0"], ready["download", "1"]) == (1, 0)
    ages = samples(stats, "pipelined_worker_heartbeat_age_seconds")
    assert 0 < ages["download", "0"] < 60
    assert ages["download", "1"] == 0
    assert samples(stats, "pipelined_build_info") == {(__version__,): 1}

"""The Prometheus view of the shared slots: a custom collector for ``prometheus_client``."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from pipelined import __version__
from pipelined.stats.registry import METRICS, Kind, Metric
from pipelined.stats.slots import SharedStats, Slot, WorkerState
from pipelined.stats.turns import TURN_METRICS

__all__ = ["SUPERVISOR_METRICS", "registry_of"]

Family = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily

#: What the collector adds from what the parent writes: name, type, label, meaning.
SUPERVISOR_METRICS: tuple[tuple[str, str, str, str], ...] = (
    ("pipelined_build_info", "gauge", "version", "1, with the version as a label."),
    ("pipelined_worker_state", "gauge", "state", "1 for the state the worker is in, 0 for the others."),
    ("pipelined_worker_restarts_total", "counter", "", "Restarts after a crash."),
    ("pipelined_worker_starts_total", "counter", "", "Processes that have taken this place so far."),
    ("pipelined_worker_ready", "gauge", "", "1 while the worker says that it is ready."),
    ("pipelined_worker_heartbeat_age_seconds", "gauge", "", "Time since the work loop last gave a sign."),
    *TURN_METRICS,
)


class SlotCollector(Collector):
    """Renders every declared metric and what the supervisor knows, for each slot."""

    def __init__(self, stats: SharedStats) -> None:
        self._stats = stats

    def collect(self) -> Iterator[Family]:
        """One family for each declared metric, read at this moment."""
        yield from self._supervisor()
        for metric in METRICS:
            yield self._family(metric)

    def _family(self, metric: Metric) -> Family:
        labels = ["worker", "index"] + ([metric.label] if metric.label else [])
        family: Family
        if metric.kind is Kind.COUNTER:
            family = CounterMetricFamily(metric.name.removesuffix("_total"), metric.help, labels=labels)
        elif metric.kind is Kind.GAUGE:
            family = GaugeMetricFamily(metric.name, metric.help, labels=labels)
        else:
            family = HistogramMetricFamily(metric.name, metric.help, labels=labels)
        for slot in self._stats.slots:
            _fill(family, metric, slot)
        return family

    def _supervisor(self) -> Iterator[Family]:
        info, states, restarts, starts, ready, heartbeat, *turns = (
            _empty(name, kind, label, meaning) for name, kind, label, meaning in SUPERVISOR_METRICS
        )
        info.add_metric([__version__], 1)
        for slot in self._stats.slots:
            who = [slot.worker, str(slot.index)]
            state = slot.parent.state
            for each in WorkerState:
                states.add_metric([*who, each.name], float(each is state))
            restarts.add_metric(who, slot.parent.all_restarts)
            starts.add_metric(who, slot.child.starts)
            running = state in {WorkerState.STARTING, WorkerState.RUNNING, WorkerState.STOPPING}
            ready.add_metric(who, float(running and slot.child.is_ready))
            heartbeat.add_metric(who, slot.child.silent_s if running else 0.0)
        for family, value in zip(turns, self._stats.turns.values(), strict=True):
            family.add_metric([], value)
        yield from (info, states, restarts, starts, ready, heartbeat, *turns)


def _empty(name: str, kind: str, label: str, meaning: str) -> CounterMetricFamily | GaugeMetricFamily:
    of_worker = name.startswith("pipelined_worker_")
    labels = (["worker", "index"] if of_worker else []) + ([label] if label else [])
    if kind == "counter":
        return CounterMetricFamily(name.removesuffix("_total"), meaning, labels=labels)
    return GaugeMetricFamily(name, meaning, labels=labels)


def _fill(family: Family, metric: Metric, slot: Slot) -> None:
    who = [slot.worker, str(slot.index)]
    if isinstance(family, HistogramMetricFamily):
        total, buckets = slot.child.histogram(metric)
        running, cumulated = 0, []
        for bound, count in zip((*map(str, metric.buckets), "+Inf"), buckets, strict=True):
            running += count
            cumulated.append((bound, float(running)))
        family.add_metric(who, buckets=cumulated, sum_value=total)
    elif isinstance(family, GaugeMetricFamily):
        family.add_metric(who, slot.child.gauge(metric))
    elif metric.values:
        for value in metric.values:
            family.add_metric([*who, value], slot.child.counter(metric, value))
    else:
        family.add_metric(who, slot.child.counter(metric))


def registry_of(stats: SharedStats) -> CollectorRegistry:
    """A registry of its own (never the global one) that renders the slots."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(SlotCollector(stats))
    return registry

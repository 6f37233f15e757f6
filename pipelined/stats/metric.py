"""What a metric is, and how one is declared."""

from __future__ import annotations

import enum
from dataclasses import dataclass

__all__ = ["RECORDS", "SECONDS", "Kind", "Metric", "declare"]


class Kind(enum.StrEnum):
    """The Prometheus type of a metric."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
RECORDS = (1.0, 10.0, 100.0, 500.0, 1000.0, 5000.0, 10000.0, 20000.0, 50000.0)


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. ``label`` is its own label, whose ``values`` are all known beforehand."""

    name: str
    kind: Kind
    help: str
    remedy: str
    label: str = ""
    values: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()

    @property
    def words(self) -> int:
        """How many 8-byte words one slot needs for it: a histogram is its sum and its buckets."""
        if self.kind is Kind.HISTOGRAM:
            return len(self.buckets) + 2
        return max(1, len(self.values))


def declare(
    metrics: list[Metric],
    kind: Kind,
    name: str,
    help: str,  # noqa: A002 - Prometheus's own word, as in the exposition format
    remedy: str,
    label: str = "",
    values: tuple[str, ...] = (),
    buckets: tuple[float, ...] = (),
) -> Metric:
    """Add a metric to those declared."""
    metric = Metric("pipelined_" + name, kind, help, remedy, label, values, buckets)
    metrics.append(metric)
    return metric

"""What every worker tells of itself in the shared counters."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Protocol

from pipelined.errors import RecordError
from pipelined.logs.setup import dropped
from pipelined.stages.contract import Partition, Record
from pipelined.stats import registry as metrics
from pipelined.stats.slots import Child

__all__ = ["Gauges"]

_logger = logging.getLogger("pipelined.workers")

_EVERY = 1.0
_SAMPLES = 500


class _Held(Protocol):
    def __len__(self) -> int: ...
    def oldest(self) -> int | None: ...


class _Reader(Protocol):
    joined: bool
    group: str

    @property
    def partitions(self) -> list[Partition]: ...
    def lag(self, committed: dict[Partition, int]) -> int: ...


class Gauges:
    """Writes a worker's metrics: counters at each commit, gauges once a second."""

    def __init__(self, stats: Child) -> None:
        self._stats = stats
        self._due = 0.0
        self._rest: Counter[str] = Counter()
        self._lost = 0

    def ready(self, reader: _Reader) -> None:
        """Say once that the worker has all it needs: it has heard which partitions are its own."""
        if reader.joined and not self._stats.is_ready:
            self._stats.ready()
            _logger.info("ready", extra={"group": reader.group})

    def spent(self, state: str, seconds: float) -> None:
        """Account for time of the loop; fractions of a millisecond are kept for the next call."""
        self._rest[state] += int(seconds * 1e9)
        whole, self._rest[state] = divmod(self._rest[state], 1_000_000)
        if whole:
            self._stats.add(metrics.LOOP_SECONDS, whole, state)

    def update(self, held: _Held, reader: _Reader, committed: dict[Partition, int]) -> None:
        """Set the gauges, at most once a second."""
        now = time.monotonic()
        if now < self._due:
            return
        self._due = now + _EVERY
        stats = self._stats
        lag = reader.lag(committed)
        oldest = held.oldest()
        stats.set(metrics.IN_FLIGHT, len(held))
        stats.set(metrics.PARTITIONS, len(reader.partitions))
        stats.set(metrics.LAG, lag)
        stats.set(metrics.OLDEST, 0 if oldest is None else oldest / 1000)
        if lag == 0 and oldest is None:
            stats.set(metrics.LAST_PROGRESS, time.time())
        lost = dropped()
        if lost > self._lost:
            stats.add(metrics.LOG_SUPPRESSED, lost - self._lost)
            self._lost = lost

    def committed(
        self, records: Sequence[Record], kinds: Mapping[str, int], outputs: int, seconds: float
    ) -> None:
        """Count one committed batch: what became of its records, and how many outputs it led to."""
        stats = self._stats
        stats.add(metrics.RECORDS_OUT, outputs)
        stats.observe(metrics.COMMIT_SECONDS, seconds)
        stats.observe(metrics.BATCH_RECORDS, len(records))
        for kind, count in kinds.items():
            stats.add(metrics.RECORDS_DONE, count, kind)
        now = time.time()
        stats.set(metrics.LAST_PROGRESS, now)
        # A sample of a large batch is enough: its records arrived and left together.
        step = max(1, len(records) // _SAMPLES)
        for record in records[::step]:
            stats.observe(metrics.EVENT_AGE, max(0.0, now - record.timestamp / 1000), step)

    def failed(self, error: RecordError, kind: str) -> None:
        """Count one committed failure: retried or dead."""
        category = str(error.category)
        self._stats.add(metrics.FAILURES, 1, category)
        self._stats.failed(f"{error.code}: {error}")
        if kind == "dead":
            self._stats.add(metrics.DEAD_LETTERS, 1, category)
        else:
            self._stats.add(metrics.RETRIES)

"""What stops a worker from taking more: a pause while something is down, and the DLQ breaker."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping

from pipelined.config.work import Breaker, Retry
from pipelined.errors import RecordError
from pipelined.stages.contract import Partition, Record
from pipelined.stats import registry as metrics
from pipelined.stats.slots import Child

__all__ = ["DlqBreaker", "Pause"]

_logger = logging.getLogger("pipelined.workers")
_LONGEST = 60.0


class Pause:
    """The pause of a stage: begins at a failure that is not the record's, grows while it goes on."""

    def __init__(self, settings: Retry, stats: Child, clock: Callable[[], float] = time.monotonic) -> None:
        self._first = settings.pause_s
        self._stats = stats
        self._clock = clock
        self._until = 0.0
        self._length = 0.0
        self._said = ""

    @property
    def active(self) -> bool:
        """Whether the stage is to wait now."""
        return self._clock() < self._until

    def begin(self, error: RecordError, record: Record | None = None) -> None:
        """Something is down or refuses us, as ``record`` met it; several of one batch make one pause."""
        if self.active:
            return
        self._length = min(_LONGEST, max(self._first, self._length * 2))
        self._until = self._clock() + self._length
        self._stats.add(metrics.PAUSES)
        self._stats.set(metrics.PAUSED, 1)
        level = logging.WARNING if self._said == error.code else logging.ERROR
        self._said = error.code
        _logger.log(
            level,
            "paused for %.1f s, nothing is lost: %s",
            self._length,
            error,
            extra={
                "code": error.code,
                "category": str(error.category),
                **(record.log_fields() if record is not None else {}),
            },
        )

    def over(self) -> None:
        """Something succeeded after the pause: the next one is a first one again."""
        if self._length and not self.active:
            _logger.info("working again after a pause", extra={"code": self._said})
            self.lift()

    def lift(self) -> None:
        """There is nothing to wait for any more."""
        self._length = 0.0
        self._until = 0.0
        self._said = ""
        self._stats.set(metrics.PAUSED, 0)


class DlqBreaker:
    """Trips when one partition's records go to the DLQ in a run, or for too large a share."""

    def __init__(self, settings: Breaker, stats: Child) -> None:
        self._settings = settings
        self._stats = stats
        self._runs: dict[Partition, int] = {}
        self._recent: dict[Partition, deque[bool]] = {}
        self._dead: dict[Partition, int] = {}
        self.tripped = False

    def record(self, kinds: Iterable[tuple[Partition, str]]) -> None:
        """Note committed records: their partition, and what became of each."""
        settings = self._settings
        for partition, kind in kinds:
            dead = kind == "dead"
            recent = self._recent.get(partition)
            if recent is None:
                recent = self._recent[partition] = deque(maxlen=settings.dlq_window)
            if len(recent) == settings.dlq_window:
                self._dead[partition] = self._dead.get(partition, 0) - recent[0]
            recent.append(dead)
            if not dead:
                self._runs[partition] = 0
                continue
            self._dead[partition] = self._dead.get(partition, 0) + 1
            run = self._runs[partition] = self._runs.get(partition, 0) + 1
            full = len(recent) == settings.dlq_window
            if run >= settings.dlq_run or (
                full and self._dead[partition] > settings.dlq_share * settings.dlq_window
            ):
                self._trip(partition, run)

    def clean(self, counts: Mapping[Partition, int]) -> None:
        """Note committed records of which none was a dead letter: how many of each partition."""
        for partition, count in counts.items():
            self._runs[partition] = 0
            recent = self._recent.get(partition)
            if recent is None:
                recent = self._recent[partition] = deque(maxlen=self._settings.dlq_window)
            recent.extend([False] * min(count, self._settings.dlq_window))
            if self._dead.get(partition):
                self._dead[partition] = sum(recent)

    def _trip(self, partition: Partition, run: int) -> None:
        if self.tripped:
            return
        self.tripped = True
        self._stats.set(metrics.DLQ_BREAKER, 1)
        _logger.critical(
            "DLQ breaker: %d of the last %d records of %s/%d were dead letters, %d in a row; nothing more is "
            "taken. Look into the DLQ, mend the cause, then restart this worker",
            self._dead[partition],
            len(self._recent[partition]),
            partition.topic,
            partition.number,
            run,
            extra={"code": "dlq_breaker"},
        )

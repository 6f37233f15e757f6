"""The retry scheduler: a task waits in the topic of its delay until it is due, never less."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterable, Sequence

from pipelined.stages.contract import Done, Outcome, Output, Partition, Record, Stream
from pipelined.stages.failures import NOT_BEFORE

__all__ = ["RetryStage"]


class RetryStage:
    """Holds records until the time in their ``not_before`` header, then hands them back as tasks.

    A record without a readable time is due at once: its delay is lost, the record is not.
    """

    name = "retry-scheduler"
    waits = False

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._heap: list[tuple[int, int, Record]] = []
        self._count = 0

    @property
    def in_flight(self) -> int:
        """Records that wait for their time."""
        return len(self._heap)

    def assigned(self, partitions: Iterable[Partition]) -> None:
        """Nothing to prepare."""

    def forget(self, partitions: Iterable[Partition]) -> None:
        """Drop what belongs to these partitions."""
        gone = set(partitions)
        self._heap = [entry for entry in self._heap if entry[2].partition not in gone]
        heapq.heapify(self._heap)

    def submit(self, records: Sequence[Record]) -> None:
        """Take records; each waits for its own time."""
        for record in records:
            text = record.header(NOT_BEFORE) or ""
            readable = text.isascii() and text.isdigit() and len(text) < 16  # int() raises for thousands
            due_ms = int(text) if readable else 0
            self._count += 1  # ties keep the order of arrival, and records are never compared
            heapq.heappush(self._heap, (due_ms, self._count, record))

    def poll(self, timeout: float) -> list[Outcome]:
        """What is due by now; never waits."""
        del timeout
        now_ms = self._clock() * 1000
        due: list[Outcome] = []
        while self._heap and self._heap[0][0] <= now_ms:
            record = heapq.heappop(self._heap)[2]
            headers = [(name, value) for name, value in record.headers if name != NOT_BEFORE]
            due.append(Done(record, (Output(Stream.PENDING, record.key, record.value, headers),)))
        return due

    def committed(self, outcomes: Sequence[Outcome]) -> None:
        """Nothing was kept for them."""

    def drain(self) -> None:
        """What is not due yet waits in its topic; nothing here needs finishing."""
        self._heap.clear()

    def close(self) -> None:
        """Nothing is held."""

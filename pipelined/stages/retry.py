"""The retry scheduler: a task waits in the topic of its delay until it is due, never less.

One that waits for longer than the longest delay, because a server asked for it, is sent to the end of that
topic again and again: so no record stays for longer in a topic than its delay, whatever a server says, and
neither the topic's retention nor the records behind it depend on it.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterable, Sequence

from pipelined.config.work import Retry
from pipelined.stages.contract import Done, Outcome, Output, Partition, Record, Stream
from pipelined.stages.failures import NOT_BEFORE

__all__ = ["RetryStage"]


class RetryStage:
    """Holds records until the time in their ``not_before`` header, then hands them back as tasks.

    A record without a readable time is due at once: its delay is lost, the record is not.
    """

    name = "retry-scheduler"
    waits = False

    def __init__(self, settings: Retry | None = None, clock: Callable[[], float] = time.time) -> None:
        settings = settings or Retry()
        self._tier = len(settings.delays_s) - 1
        self._longest_ms = int(max(settings.delays_s, default=0.0) * (1 + settings.jitter) * 1000)
        self._clock = clock
        self._heap: list[tuple[int, int, int, Record]] = []  # when to act, a count, when it is due
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
        self._heap = [entry for entry in self._heap if entry[3].partition not in gone]
        heapq.heapify(self._heap)

    def submit(self, records: Sequence[Record]) -> None:
        """Take records; each waits for its own time."""
        now_ms = int(self._clock() * 1000)
        latest = now_ms + self._longest_ms
        for record in records:
            text = record.header(NOT_BEFORE) or ""
            readable = text.isascii() and text.isdigit() and len(text) < 16  # int() raises for thousands
            due_ms = int(text) if readable else 0
            if 0 < record.timestamp < due_ms:
                # Both are of the writer's clock. If that is ahead of ours, the wait it meant is what counts.
                due_ms = min(due_ms, now_ms + due_ms - record.timestamp)
            self._count += 1  # ties keep the order of arrival, and records are never compared
            heapq.heappush(self._heap, (min(due_ms, latest), self._count, due_ms, record))

    def poll(self, timeout: float) -> list[Outcome]:
        """What is due by now, or to be sent around; never waits."""
        del timeout
        now_ms = self._clock() * 1000
        due: list[Outcome] = []
        while self._heap and self._heap[0][0] <= now_ms:
            _, _, due_ms, record = heapq.heappop(self._heap)
            if due_ms > now_ms:
                around = Output(Stream.RETRY, record.key, record.value, record.headers, tier=self._tier)
                due.append(Done(record, (around,)))
                continue
            headers = [(name, value) for name, value in record.headers if name != NOT_BEFORE]
            due.append(Done(record, (Output(Stream.PENDING, record.key, record.value, headers),)))
        return due

    def committed(self, outcomes: Sequence[Outcome]) -> None:
        """Nothing was kept for them."""

    def give_up(self, records: Sequence[Record]) -> None:
        """A record that waits for its time is not stuck."""

    def drain(self) -> None:
        """What is not due yet waits in its topic; nothing here needs finishing."""
        self._heap.clear()

    def close(self) -> None:
        """Nothing is held."""

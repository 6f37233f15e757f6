"""Stages for tests of the runtime: one that judges at once, and one whose test decides what is done when."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence

from pipelined.errors import TransientError
from pipelined.messages.codec import decode
from pipelined.messages.task import DownloadTask
from pipelined.stages.contract import Done, Failed, Outcome, Output, Partition, Record, Stream


def copied(record: Record) -> Done:
    """The record's value as it is, one stream further."""
    return Done(record, (Output(Stream.CACHED, record.key, record.value, record.headers),))


class Judging:
    """Every record is judged when it is submitted; copied, unless ``judge`` says otherwise."""

    name = "download"
    waits = False

    def __init__(self, judge: Callable[[Record], Outcome] = copied) -> None:
        self.submitted: list[Record] = []
        self.durable: list[Outcome] = []
        self.gained: list[Partition] = []
        self.gone: list[Partition] = []
        self._judge = judge
        self._outcomes: list[Outcome] = []

    @property
    def in_flight(self) -> int:
        return len(self._outcomes)

    def assigned(self, partitions: Iterable[Partition]) -> None:
        self.gained += partitions

    def forget(self, partitions: Iterable[Partition]) -> None:
        gone = set(partitions)
        self.gone += gone
        self._outcomes = [o for o in self._outcomes if o.record.partition not in gone]

    def submit(self, records: Sequence[Record]) -> None:
        self.submitted += records
        self._outcomes += [self._judge(record) for record in records]

    def poll(self, timeout: float) -> list[Outcome]:
        del timeout
        outcomes, self._outcomes = self._outcomes, []
        return outcomes

    def committed(self, outcomes: Sequence[Outcome]) -> None:
        self.durable += outcomes

    def give_up(self, records: Sequence[Record]) -> None:
        """Nothing takes long."""

    def drain(self) -> None:
        """Nothing is ever half done."""

    def close(self) -> None:
        self._outcomes = []


class Ordered:
    """Records wait until the test says ``finish``; then each is copied, in the order of the call."""

    name = "download"
    waits = True

    def __init__(self) -> None:
        self.waiting: dict[bytes, Record] = {}
        self.polls = 0
        self.draining = threading.Event()
        self._finished: list[Outcome] = []
        self._changed = threading.Condition()

    @property
    def in_flight(self) -> int:
        return len(self.waiting) + len(self._finished)

    def finish(self, *values: bytes) -> None:
        with self._changed:
            self._finished += [copied(self.waiting.pop(value)) for value in values]
            self._changed.notify()

    def assigned(self, partitions: Iterable[Partition]) -> None:
        """Nothing to prepare."""

    def forget(self, partitions: Iterable[Partition]) -> None:
        gone = set(partitions)
        with self._changed:
            self.waiting = {v: r for v, r in self.waiting.items() if r.partition not in gone}

    def submit(self, records: Sequence[Record]) -> None:
        with self._changed:
            self.waiting |= {record.value: record for record in records}

    def poll(self, timeout: float) -> list[Outcome]:
        with self._changed:
            self.polls += 1
            self._changed.wait_for(lambda: self._finished, timeout)
            outcomes, self._finished = self._finished, []
            return outcomes

    def committed(self, outcomes: Sequence[Outcome]) -> None:
        """Nothing is kept."""

    def give_up(self, records: Sequence[Record]) -> None:
        with self._changed:
            for record in records:
                if self.waiting.pop(record.value, None) is not None:
                    task = decode(record.value, DownloadTask)
                    self._finished.append(Failed(record, TransientError("stuck", "it took too long"), task))
            self._changed.notify()

    def drain(self) -> None:
        self.draining.set()

    def close(self) -> None:
        with self._changed:
            self.waiting = {}

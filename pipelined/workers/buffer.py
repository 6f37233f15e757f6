"""Records that wait for the next commit of a table, by partition, with what decides when that is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pipelined.stages.contract import Partition, Record

__all__ = ["Buffer"]


class Buffer:
    """Records in the order of their offsets. ``len()`` counts them, ``size`` is their bytes."""

    def __init__(self) -> None:
        self.partitions: dict[Partition, list[Record]] = {}
        self.size = 0
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, records: Sequence[Record]) -> None:
        """Take records, in order."""
        for record in records:
            lane = self.partitions.get(record.partition)
            if lane is None:
                lane = self.partitions[record.partition] = []
            lane.append(record)
            self.size += len(record.value)
        self._count += len(records)

    def oldest(self) -> int | None:
        """The arrival (ms) of the oldest record, None where there is none."""
        return min((lane[0].timestamp for lane in self.partitions.values()), default=None)

    def forget(self, partitions: Iterable[Partition]) -> None:
        """Drop what belongs to these partitions."""
        for partition in partitions:
            for record in self.partitions.pop(partition, ()):
                self.size -= len(record.value)
                self._count -= 1

    def clear(self) -> None:
        """Drop everything: it is stored."""
        self.partitions = {}
        self.size = 0
        self._count = 0

"""The acknowledgement window: what is taken, what is done, and what may be committed.

Records are taken in order and settled in any order. This window releases outcomes in the order of their
offsets: an outcome behind one that is still open waits for it, and nothing of it is produced before. The
offset that may be committed for a partition is therefore always the one behind the last released record.

This is the one place that knows about order: a window that releases outcomes as they come, and carries
what is done beyond the first gap in the offset's metadata, replaces this one without touching the runtime.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Generic, TypeVar

from pipelined.stages.contract import Partition, Record

__all__ = ["Window"]

T = TypeVar("T")


class _Lane(Generic[T]):
    """One partition: its open records in order, and the results that wait for an earlier one."""

    __slots__ = ("done", "order", "taken")

    def __init__(self) -> None:
        self.order: deque[int] = deque()
        self.taken: dict[int, Record] = {}
        self.done: dict[int, T] = {}


class Window(Generic[T]):
    """All partitions of one worker, with one result ``T`` for each settled record.

    ``len()`` is the number of records taken and not yet released.
    """

    def __init__(self) -> None:
        self._lanes: dict[Partition, _Lane[T]] = {}
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def take(self, records: Iterable[Record]) -> None:
        """Records were read and handed to the stage, in the order of their offsets."""
        lanes = self._lanes
        for record in records:
            lane = lanes.get(record.partition)
            if lane is None:
                lane = lanes[record.partition] = _Lane()
            lane.order.append(record.offset)
            lane.taken[record.offset] = record
            self._size += 1

    def settle(self, record: Record, result: T) -> bool:
        """A record is done. False, and no effect, when the record is not the one that was taken here.

        A record of an assignment that ended is another object than the one read after it came back, so a
        late result of the former never counts for the latter.
        """
        lane = self._lanes.get(record.partition)
        if lane is None or lane.taken.get(record.offset) is not record or record.offset in lane.done:
            return False
        lane.done[record.offset] = result
        return True

    def holds(self, record: Record) -> bool:
        """Whether this very record was taken here and is not settled."""
        lane = self._lanes.get(record.partition)
        return lane is not None and lane.taken.get(record.offset) is record and record.offset not in lane.done

    def release(self) -> tuple[list[Record], list[T], dict[Partition, int]]:
        """The records that may be committed now, their results, and each partition's next offset."""
        records: list[Record] = []
        results: list[T] = []
        offsets: dict[Partition, int] = {}
        for partition, lane in self._lanes.items():
            order, done, taken = lane.order, lane.done, lane.taken
            offset = -1
            while order and order[0] in done:
                offset = order.popleft()
                results.append(done.pop(offset))
                records.append(taken.pop(offset))
            if offset >= 0:
                offsets[partition] = offset + 1
        self._size -= len(records)
        return records, results, offsets

    def restore(self, records: Sequence[Record], results: Sequence[T]) -> None:
        """Their transaction was aborted: what was released comes back, in front, still done."""
        for record, result in zip(reversed(records), reversed(results), strict=True):
            lane = self._lanes.setdefault(record.partition, _Lane())
            lane.order.appendleft(record.offset)
            lane.taken[record.offset] = record
            lane.done[record.offset] = result
        self._size += len(records)

    def count(self, partition: Partition) -> int:
        """Records of one partition that are taken and not yet released."""
        lane = self._lanes.get(partition)
        return 0 if lane is None else len(lane.order)

    def forget(self, partitions: Iterable[Partition]) -> None:
        """These partitions belong to someone else; what is open or waits for them is dropped."""
        for partition in partitions:
            lane = self._lanes.pop(partition, None)
            if lane is not None:
                self._size -= len(lane.order)

    def open(self, partitions: Iterable[Partition]) -> int:
        """How many records of these partitions are not settled."""
        lanes = (self._lanes.get(partition) for partition in partitions)
        return sum(len(lane.taken) - len(lane.done) for lane in lanes if lane is not None)

    def oldest(self) -> int | None:
        """The arrival (ms) of the oldest record at the head of a partition, None where there is none."""
        return min(
            (lane.taken[lane.order[0]].timestamp for lane in self._lanes.values() if lane.order), default=None
        )

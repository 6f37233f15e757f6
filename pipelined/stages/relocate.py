"""After ``events.raw`` was grown: records whose key belongs to another partition now are sent there.

Whether an event is new is judged by the owner of its partition. A record that was produced before the
growth, or after it by a producer that had not heard of it, may lie where its duplicates do not come any
more. It is put on the partition of its key, in the same transaction, and judged there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from pipelined.stages.contract import Done, Outcome, Output, Partition, Record, Stage, Stream

__all__ = ["Relocating"]


class Relocating:
    """The stage ``inner``, given only records that lie on the partition of their key.

    ``moving`` tells the number of partitions and the arrival (ms) up to which a record may be misplaced,
    (0, 0) when none can be; it is asked after each assignment. ``partition_of(key, partitions)`` is how
    producers choose.
    """

    def __init__(
        self,
        inner: Stage,
        moving: Callable[[], tuple[int, int]],
        partition_of: Callable[[bytes, int], int],
    ) -> None:
        self._inner = inner
        self._moving = moving
        self._partition_of = partition_of
        self._partitions, self._until = 0, 0
        self._moved: list[Outcome] = []
        self.name = inner.name
        self.waits = inner.waits

    @property
    def in_flight(self) -> int:
        """Records whose outcome waits to be polled."""
        return self._inner.in_flight + len(self._moved)

    def assigned(self, partitions: Iterable[Partition]) -> None:
        """The stage's own affair; a growth is known afterwards."""
        self._inner.assigned(partitions)
        self._partitions, self._until = self._moving()

    def forget(self, partitions: Iterable[Partition]) -> None:
        """Drop what belongs to these partitions."""
        gone = set(partitions)
        self._inner.forget(gone)
        self._moved = [outcome for outcome in self._moved if outcome.record.partition not in gone]

    def submit(self, records: Sequence[Record]) -> None:
        """Hand on what lies where it belongs."""
        if not self._until:
            self._inner.submit(records)
            return
        staying: list[Record] = []
        for record in records:
            if record.key and record.timestamp <= self._until:
                number = self._partition_of(record.key, self._partitions)
                if number != record.partition.number:
                    self._moved.append(_moved(record, number))
                    continue
            staying.append(record)
        if staying:
            self._inner.submit(staying)

    def poll(self, timeout: float) -> list[Outcome]:
        """What is finished."""
        moved, self._moved = self._moved, []
        return moved + self._inner.poll(timeout)

    def committed(self, outcomes: Sequence[Outcome]) -> None:
        """These outcomes are durable."""
        self._inner.committed(outcomes)

    def give_up(self, records: Sequence[Record]) -> None:
        """The stage's own affair: what is moved is finished at once."""
        self._inner.give_up(records)

    def drain(self) -> None:
        """The worker stops."""
        self._inner.drain()

    def close(self) -> None:
        """Give everything back."""
        self._inner.close()


def _moved(record: Record, number: int) -> Done:
    arrival = record.timestamp if record.timestamp > 0 else None
    again = Output(Stream.RAW, record.key, record.value, record.headers, number, arrival)
    return Done(record, (again,), "moved")

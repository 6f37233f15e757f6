"""The acknowledgement window: what is taken, what is done, and what may be committed.

Records are taken in the order of their offsets, settled in any order, and released as soon as they are
settled: a slow one holds up nobody. What may be committed for a partition is the offset of its first open
record, and beyond it, as a :class:`pipelined.kafka.progress.Progress` in few bytes, what is done already.
Whoever has the partition next begins with that, and does nothing twice. Nothing here knows of Kafka.

How it is used, in this order: ``assign`` a partition, ``take`` its records, ``settle`` each, ``release``
what one transaction shall carry and, if that transaction did not happen, ``restore`` it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Generic, NamedTuple, TypeVar

from pipelined.kafka.progress import Progress, Run, encode, runs_of
from pipelined.stages.contract import Partition, Record

__all__ = ["BackwardsError", "Commit", "Release", "Window"]

T = TypeVar("T")


class BackwardsError(Exception):
    """A record came whose offset lies before one that came earlier: this is not the same topic any more."""


class Commit(NamedTuple):
    """What to commit for a partition: its progress, and the encoding of what is done beyond the offset."""

    progress: Progress
    beyond: bytes


class Release(NamedTuple, Generic[T]):
    """What one transaction carries: settled records, their results, and the commit of each partition."""

    records: list[Record]
    results: list[T]
    commits: dict[Partition, Commit]


class _Lane(Generic[T]):
    """One partition. ``seen`` is the offset behind the last record that came."""

    __slots__ = ("before", "open", "records", "results", "seen", "taken")

    def __init__(self, before: Progress) -> None:
        #: What was committed when the partition was assigned.
        self.before = before
        self.seen = before.offset
        self.open: dict[int, Record] = {}  # in the order of the offsets
        #: What is settled, and not released yet.
        self.records: list[Record] = []
        self.results: list[T] = []
        #: When records were taken: the offset behind them, and a moment.
        self.taken: deque[tuple[int, float]] = deque()

    def came(self, offset: int) -> bool:
        """A record came; False where it is done already."""
        if offset < self.seen:
            raise BackwardsError(f"offset {offset} came after {self.seen - 1}")
        self.seen = offset + 1
        return not self.before.is_done(offset)

    def release(self) -> tuple[list[Record], list[T], Commit]:
        """What is settled, as far as a commit can tell of it."""
        runs, end = self._runs()
        progress, beyond = encode(runs, end)
        records, results = self.records, self.results
        self.records, self.results = [], []
        told = runs[-1][0] if runs and runs[-1][1] == end else end
        if progress.end < told:  # what the encoding has no room for waits
            for record, result in zip(records, results, strict=True):
                if record.offset >= progress.end:
                    self.records.append(record)
                    self.results.append(result)
            results = [r for record, r in zip(records, results, strict=True) if record.offset < progress.end]
            records = [record for record in records if record.offset < progress.end]
        self._let_go(progress.offset)
        return records, results, Commit(progress, beyond)

    def taken_at(self, offset: int) -> float:
        """When the first open record was taken, which is that of ``offset``."""
        self._let_go(offset)
        return self.taken[0][1]

    def _runs(self) -> tuple[list[Run], int]:
        """What is open, and where that ends: what came, and what a predecessor had open beyond."""
        before, seen = self.before, self.seen
        runs = runs_of(self.open)
        if before.end <= seen:
            return runs, seen
        for first, end in before.open:
            if end <= seen:
                continue
            if runs and runs[-1][1] >= first:
                runs[-1] = (runs[-1][0], end)
            else:
                runs.append((max(first, seen), end))
        return runs, before.end

    def _let_go(self, offset: int) -> None:
        taken = self.taken
        while taken and taken[0][0] <= offset:
            taken.popleft()


class Window(Generic[T]):
    """All partitions of one worker, with one result ``T`` for each settled record.

    ``len()`` is the number of records taken and not yet released.
    """

    def __init__(self) -> None:
        self._lanes: dict[Partition, _Lane[T]] = {}

    def __len__(self) -> int:
        return sum(len(lane.open) + len(lane.records) for lane in self._lanes.values())

    def assign(self, positions: Mapping[Partition, Progress]) -> None:
        """These partitions are ours, and so far they are done."""
        for partition, progress in positions.items():
            self._lanes[partition] = _Lane(progress)

    def take(self, records: Sequence[Record], now: float) -> Sequence[Record]:
        """Records were read, at the moment ``now``; returns those that are not done already.

        Raises BackwardsError for an offset that lies before one that came earlier.
        """
        last: Partition | None = None
        lane: _Lane[T] | None = None
        done = 0
        taken: list[Record] = []
        for record in records:
            partition, offset = record.partition, record.offset
            if partition is not last:
                if lane is not None:
                    lane.taken.append((lane.seen, now))
                last, lane = partition, self._lanes[partition]
                done = lane.before.end
            assert lane is not None
            if offset < done or offset < lane.seen:
                if not lane.came(offset):
                    continue
            else:
                lane.seen = offset + 1
            lane.open[offset] = record
            taken.append(record)
        if lane is not None:
            lane.taken.append((lane.seen, now))
        return taken

    def settle(self, record: Record, result: T) -> bool:
        """A record is done. False, and no effect, when the record is not the one that was taken here.

        A record of an assignment that ended is another object than the one read after it came back, so a
        late result of the former never counts for the latter.
        """
        lane = self._lanes.get(record.partition)
        if lane is None or lane.open.get(record.offset) is not record:
            return False
        del lane.open[record.offset]
        lane.records.append(record)
        lane.results.append(result)
        return True

    def holds(self, record: Record) -> bool:
        """Whether this very record was taken here and is not settled."""
        lane = self._lanes.get(record.partition)
        return lane is not None and lane.open.get(record.offset) is record

    def release(self) -> Release[T]:
        """Everything settled that a commit can tell of, which is nearly always everything settled."""
        records: list[Record] = []
        results: list[T] = []
        commits: dict[Partition, Commit] = {}
        for partition, lane in self._lanes.items():
            if lane.records:
                of_lane, with_results, commit = lane.release()
                if of_lane:
                    commits[partition] = commit
                    records += of_lane
                    results += with_results
        return Release(records, results, commits)

    def restore(self, release: Release[T]) -> None:
        """Its transaction did not happen: what was released comes back, in front, still done."""
        back: dict[Partition, tuple[list[Record], list[T]]] = {}
        for record, result in zip(release.records, release.results, strict=True):
            records, results = back.setdefault(record.partition, ([], []))
            records.append(record)
            results.append(result)
        for partition, (records, results) in back.items():
            if (lane := self._lanes.get(partition)) is not None:
                lane.records[:0] = records
                lane.results[:0] = results

    def forget(self, partitions: Iterable[Partition]) -> None:
        """These partitions belong to someone else; what is open or waits for them is dropped."""
        for partition in partitions:
            self._lanes.pop(partition, None)

    def count(self, partition: Partition) -> int:
        """Records of one partition that are taken and not yet released."""
        lane = self._lanes.get(partition)
        return 0 if lane is None else len(lane.open) + len(lane.records)

    def open(self, partitions: Iterable[Partition]) -> int:
        """How many records of these partitions are not settled."""
        return sum(len(lane.open) for lane in map(self._lanes.get, partitions) if lane is not None)

    def stuck(self, since: float) -> list[Record]:
        """The first open record of each partition, where it was taken before the moment ``since``."""
        return [lane.open[head] for lane, head in self._heads() if lane.taken_at(head) < since]

    def excuse(self, now: float) -> None:
        """Whatever was taken before counts as taken now: it could not have been done meanwhile."""
        for lane in self._lanes.values():
            lane.taken.clear()
            lane.taken.append((lane.seen, now))

    def oldest(self) -> int | None:
        """The arrival (ms) of the oldest record in hand, as far as the partitions' first ones tell."""
        heads = [lane.open[head].timestamp for lane, head in self._heads()]
        heads += [lane.records[0].timestamp for lane in self._lanes.values() if lane.records]
        return min(heads, default=None)

    def _heads(self) -> Iterator[tuple[_Lane[T], int]]:
        for lane in self._lanes.values():
            if lane.open:
                yield lane, next(iter(lane.open))

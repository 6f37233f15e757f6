"""The memory of one partition: which trace ids it has admitted within the horizon."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import islice

__all__ = ["Horizon"]

_BUCKETS = 24
_ID = 16
#: A record: an identity, a byte for the bucket in which it was admitted, and one for who brought it.
_RECORD = _ID + 2
_BY = _ID + 1
#: So many records a shard has on average before it is split, and into how many it is split.
_FULL = 12
_WAYS = 4
_SHARDS = 64
#: With each new bucket so many shards are rid of what is dead: all of them within so many buckets, long
#: before the 256 marks that a byte has come round again.
_SWEEPS = 64


class Horizon:
    """Identities (16 bytes each), remembered for at least ``hours`` of arrivals, in 26 to 48 bytes each.

    With each it is kept who brought it so far: a byte of flags, whose meaning is the caller's.

    Age is judged against the newest arrival seen, not against the clock: after a long stop the backlog is
    still deduplicated over the whole horizon. An identity counts from the newest arrival at its admission,
    so that one that comes late is remembered as long as any other: the same as reading the partition back
    gives. It is forgotten at most a twenty-fourth of the horizon later than promised.

    ``before`` holds what other partitions admitted before the topic was grown: it is asked too, until
    its newest arrival is beyond the horizon.
    """

    # A set of bytes costs 105 to 160 bytes an id, and stands still for 0.2 s when a million entries are
    # moved or freed. This is a hash table whose shards are byte strings: records one behind the other, in
    # the order of admission, searched by bytes.find. It grows by splitting one shard at a time.
    __slots__ = (
        "_before",
        "_counts",
        "_end",
        "_fresh",
        "_mark",
        "_mask",
        "_newest",
        "_room",
        "_shards",
        "_span",
        "_split",
        "_swept",
        "_wide",
        "_width",
    )

    def __init__(self, hours: float, before: Horizon | None = None) -> None:
        self._width = max(1, round(hours * 3_600_000 / _BUCKETS))
        self._before = before
        self._shards = [b""] * _SHARDS
        self._mask = _SHARDS - 1
        self._wide = _SHARDS * _WAYS - 1
        self._split = 0  # shards below it are split already, and found by the wide mask
        self._room = _SHARDS * _FULL
        self._newest = -1  # the newest bucket
        self._end = 0  # arrivals from here on begin a new bucket
        self._mark = 0  # of the newest bucket; the one before has one less, modulo 256
        self._span = 0  # marks that are older by more are dead
        self._counts: deque[tuple[int, int]] = deque()  # older buckets with their sizes, the oldest first
        self._fresh = 0  # size of the newest bucket
        self._swept = 0

    @property
    def size(self) -> int:
        """How many identities are remembered, those of ``before`` not counted."""
        return sum(count for _, count in self._counts) + self._fresh

    def __contains__(self, trace: bytes) -> bool:
        number = hash(trace)
        place = number & self._mask
        if place < self._split:
            place = number & self._wide
        shard = self._shards[place]
        at = shard.find(trace)
        if at >= 0 and self._alive(shard, at, trace) >= 0:
            return True
        return self._before is not None and trace in self._before

    def _alive(self, shard: bytes, at: int, trace: bytes) -> int:
        """Where a record of it that still counts is, from ``at`` on; -1 where there is none."""
        while at >= 0:
            if at % _RECORD == 0 and (self._mark - shard[at + _ID]) & 255 <= self._span:
                return at
            at = shard.find(trace, at + 1)
        return -1

    def add(self, trace: bytes, arrival_ms: int, by: int) -> None:
        """Remember an identity that is not known yet."""
        self.load((trace,), (arrival_ms,), (by,))

    def admit(self, traces: Sequence[bytes], arrivals_ms: Sequence[int], by: Sequence[int]) -> list[int]:
        """For each in turn: who brought it before; 0 where it was not known. It is remembered, and by whom.

        ``by`` are flags, from 1 to 255.
        """
        self._reserve(len(traces))
        told: list[int] = []
        append, added = told.append, 0
        shards, mask, split, wide = self._shards, self._mask, self._split, self._wide
        mark, span, end, before = self._mark, self._span, self._end, self._before
        tags = {flags: bytes((mark, flags)) for flags in set(by)}
        for trace, number, arrival, flags in zip(traces, map(hash, traces), arrivals_ms, by, strict=True):
            place = number & mask
            if place < split:
                place = number & wide
            shard = shards[place]
            if (at := shard.find(trace)) >= 0 and (at := self._alive(shard, at, trace)) >= 0:
                append(self._brought(place, at, flags))
                continue
            if before is not None and (known := before.brought(trace, flags)):
                append(known)
                continue
            append(0)
            if arrival >= end:
                self._fresh += added
                self._begin(arrival)
                mark, span, end, before = self._mark, self._span, self._end, self._before
                tags = {flags: bytes((mark, flags)) for flags in tags}
                added, shard = 0, shards[place]
            if shard and (mark - shard[_ID]) & 255 > span:
                shard = self._live(shard)
            shards[place] = shard + (trace + tags[flags])
            added += 1
        self._fresh += added
        self._room -= told.count(0)
        return told

    def brought(self, trace: bytes, by: int) -> int:
        """Who brought an identity before, 0 where it is not known. By whom now is remembered if it is."""
        number = hash(trace)
        place = number & self._mask
        if place < self._split:
            place = number & self._wide
        shard = self._shards[place]
        at = self._alive(shard, shard.find(trace), trace)
        return self._brought(place, at, by) if at >= 0 else 0

    def _brought(self, place: int, at: int, by: int) -> int:
        shard, at = self._shards[place], at + _BY
        known = shard[at]
        if by & ~known:
            self._shards[place] = b"%b%c%b" % (shard[:at], known | by, shard[at + 1 :])
        return known

    def load(self, traces: Sequence[bytes], arrivals_ms: Sequence[int], by: Sequence[int]) -> None:
        """Remember identities that are not known yet: the quick way to read a partition back."""
        self._reserve(len(traces))
        self._room -= len(traces)
        shards, mask, split, wide = self._shards, self._mask, self._split, self._wide
        start, stop = 0, len(traces)
        while start < stop:
            if arrivals_ms[start] >= self._end:
                self._begin(arrivals_ms[start])
            end, mark = self._end, self._mark
            after = next((at for at in range(start, stop) if arrivals_ms[at] >= end), stop)
            tags = {flags: bytes((mark, flags)) for flags in set(by[start:after])}
            for trace, flags in zip(traces[start:after], by[start:after], strict=True):
                number = hash(trace)
                place = number & mask
                if place < split:
                    place = number & wide
                shards[place] += trace + tags[flags]
            self._fresh += after - start
            start = after

    def _begin(self, arrival_ms: int) -> None:
        """Begin a new bucket, and forget those that are too old now."""
        newest = arrival_ms // self._width
        if self._newest >= 0:
            self._counts.append((self._newest, self._fresh))
        self._newest, self._fresh = newest, 0
        self._end = (newest + 1) * self._width
        self._mark = (self._mark + 1) & 255
        while self._counts and self._counts[0][0] < newest - _BUCKETS:
            self._counts.popleft()
        self._span = len(self._counts)
        if self._before is not None and self._before._newest < newest - _BUCKETS:
            self._before = None
        self._sweep()

    def _sweep(self) -> None:
        shards = self._shards
        start = self._swept if self._swept < len(shards) else 0
        self._swept = start + len(shards) // _SWEEPS + 1
        for place, shard in enumerate(islice(shards, start, self._swept), start):
            if shard and (self._mark - shard[_ID]) & 255 > self._span:
                shards[place] = self._live(shard)

    def _live(self, shard: bytes) -> bytes:
        """A shard without what is dead: its first records, as they stand in the order of admission."""
        at = 0
        while at < len(shard) and (self._mark - shard[at + _ID]) & 255 > self._span:
            at += _RECORD
        self._room += at // _RECORD
        return shard[at:]

    def _reserve(self, count: int) -> None:
        """Make room for so many: a batch must not meet a table that changes under it."""
        while self._room < count:
            self._split_next()

    def _split_next(self) -> None:
        shards, place, step = self._shards, self._split, self._mask + 1
        if place == 0:
            shards.extend([b""] * (step * (_WAYS - 1)))
        shard = self._live(shards[place])
        parts: dict[int, list[bytes]] = {place + step * way: [] for way in range(_WAYS)}
        for at in range(0, len(shard), _RECORD):
            record = shard[at : at + _RECORD]
            parts[hash(record[:_ID]) & self._wide].append(record)
        for part, records in parts.items():
            shards[part] = b"".join(records)
        self._room += (_WAYS - 1) * _FULL
        self._split += 1
        if self._split == step:
            self._mask, self._wide, self._split = self._wide, (self._wide + 1) * _WAYS - 1, 0

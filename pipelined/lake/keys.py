"""Which keys of an upsert table exist already: what decides between an append and a MERGE."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping

__all__ = ["KnownKeys"]

#: Reads the keys of the days from the table: pairs of a day and the hash of one key.
Reader = Callable[[Iterable[int]], Iterator[tuple[int, int]]]


class KnownKeys:
    """Hashes of the keys in the table, by day (days since 1970), at most ``limit`` in all.

    Days are read from the table when first asked for, and the least recently used ones given up. A day
    with more keys than the limit is not kept: all its keys count as known. A key may be called known
    though it is new (a hash met twice, a day too large), which costs a MERGE; never the other way round.
    Hashes are plain ints: half the memory of digests, and a collision is harmless.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._days: OrderedDict[int, set[int] | None] = OrderedDict()
        self._count = 0

    def __len__(self) -> int:
        """Keys in memory."""
        return self._count

    def any_known(self, batch: Mapping[int, set[int]], read: Reader) -> bool:
        """Whether any of the batch's keys (hashes by day) is in the table; reads days not yet in memory."""
        missing = [day for day in batch if day not in self._days]
        if len(missing) > 1:
            self._load(missing, read)  # one reading for all, where they fit
        for day, hashes in batch.items():
            if day not in self._days:
                self._load([day], read)
            keys = self._days[day]
            if keys is None or not keys.isdisjoint(hashes):
                return True
            self._days.move_to_end(day)
            self._shrink()
        return False

    def add(self, batch: Mapping[int, set[int]]) -> None:
        """These keys are in the table now, durable. Days not in memory are left to their next reading."""
        for day, hashes in batch.items():
            keys = self._days.get(day)
            if keys is None:
                continue
            before = len(keys)
            keys |= hashes
            self._count += len(keys) - before
            self._days.move_to_end(day)
            if len(keys) > self._limit:
                self._give_up(day)
        self._shrink()

    def clear(self) -> None:
        """Forget everything: someone else may have written."""
        self._days.clear()
        self._count = 0

    def _load(self, days: list[int], read: Reader) -> None:
        loaded: dict[int, set[int]] = {day: set() for day in days}
        for number, (day, key) in enumerate(read(days)):
            if number >= self._limit:
                if len(days) == 1:
                    self._days[day] = None
                return
            loaded[day].add(key)
        self._days.update(loaded)
        self._count += sum(map(len, loaded.values()))

    def _give_up(self, day: int) -> None:
        self._count -= len(self._days[day] or ())
        self._days[day] = None

    def _shrink(self) -> None:
        """Drop the least recently used days beyond the limit, but not the last used."""
        while self._count > self._limit and len(self._days) > 1:
            _, keys = self._days.popitem(last=False)
            self._count -= len(keys or ())

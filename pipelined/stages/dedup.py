"""The memory of one partition: which trace ids it has admitted within the horizon."""

from __future__ import annotations

__all__ = ["Horizon"]

_BUCKETS = 24


class Horizon:
    """Trace ids by time of arrival, in buckets that are dropped whole when they are too old.

    Age is judged against the newest arrival seen, not against the clock: after a long stop the backlog is
    still deduplicated over the whole horizon.
    """

    __slots__ = ("_buckets", "_newest", "_width", "size")

    def __init__(self, hours: float) -> None:
        self._width = max(1, round(hours * 3_600_000 / _BUCKETS))
        self._buckets: dict[int, set[bytes]] = {}
        self._newest = 0
        self.size = 0

    def __contains__(self, trace: bytes) -> bool:
        for bucket in self._buckets.values():  # noqa: SIM110 - a generator would cost three times as much
            if trace in bucket:
                return True
        return False

    def add(self, trace: bytes, arrival_ms: int) -> None:
        """Remember an identity that is not known yet."""
        number = arrival_ms // self._width
        target = self._buckets.get(number)
        if target is None:
            target = self._buckets[number] = set()
            if number > self._newest:
                self._newest = number
                self._expire()
        target.add(trace)
        self.size += 1

    def _expire(self) -> None:
        for number in [n for n in self._buckets if n < self._newest - _BUCKETS]:
            self.size -= len(self._buckets.pop(number))

"""Whether what waits in a hub comes: a connection may look well for hours and bring nothing."""

from __future__ import annotations

from collections.abc import Mapping

from pipelined.sources.hub_position import Position

__all__ = ["Watch"]


class Watch:
    """Remembers where each partition stood when something was first seen to wait in it."""

    def __init__(self) -> None:
        self._waits: dict[int, tuple[int, float]] = {}

    def reset(self) -> None:
        """Nobody could have taken anything: begin anew."""
        self._waits = {}

    def stalled(self, position: Position, ends: Mapping[int, int], now: float) -> float:
        """For how many seconds something has waited in a partition that has not moved since."""
        waits = {}
        for number, place in position.partitions.items():
            if ends[number] > place.next:
                seen = self._waits.get(number)
                waits[number] = seen if seen and seen[0] == place.next else (place.next, now)
        self._waits = waits
        return now - min((since for _, since in waits.values()), default=now)

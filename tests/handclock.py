"""A clock that goes when told to."""

from __future__ import annotations


class Clock:
    """Called, it tells ``now``, in seconds."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

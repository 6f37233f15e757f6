"""What a running process looks after now and then: a level that changed, and counts that are due."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from pipelined.logs.setup import tick

__all__ = ["Following"]

_EVERY_S = 0.5


class Following:
    """Called as often as one likes. ``wanted`` tells the level, 0: the one that is configured."""

    def __init__(self, wanted: Callable[[], int]) -> None:
        self._wanted = wanted
        self._level = 0
        self._due = 0.0

    def __call__(self) -> None:
        """Look, if it is time to."""
        now = time.monotonic()
        if now < self._due:
            return
        self._due = now + _EVERY_S
        tick()
        level = self._wanted()
        if level and level != self._level:
            self._level = level
            logging.getLogger().setLevel(level)

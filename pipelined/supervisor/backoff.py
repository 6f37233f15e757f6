"""When a worker that ended may start again, and when it is given up."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable

from pipelined.config.tree import Supervisor

__all__ = ["Backoff"]

_MOST_DOUBLINGS = 32


class Backoff:
    """The restarts of one worker: the wait doubles from crash to crash, until it was healthy long enough.

    The wait is judged by how long the worker had been ready, never by how soon it died: a worker that
    crashes after an hour starts again at once, one that never becomes ready waits longer each time.
    """

    def __init__(self, settings: Supervisor, spread: Callable[[], float] | None = None) -> None:
        self._settings = settings
        self._spread = spread or (lambda: random.uniform(0.8, 1.2))
        self._crashes: deque[float] = deque()
        self._doublings = 0

    def failed(self, now: float, healthy_for: float) -> float | None:
        """The worker ended after ``healthy_for`` seconds of being ready, at ``now`` on the monotonic clock.

        Returns the seconds to wait before the next start, or None to give up.
        """
        settings = self._settings
        while self._crashes and self._crashes[0] <= now - settings.restart_window_s:
            self._crashes.popleft()
        if len(self._crashes) >= settings.max_restarts:
            return None
        self._crashes.append(now)
        if healthy_for >= settings.healthy_s:
            self._doublings = 0
            return 0.0
        wait = min(settings.backoff_first_s * 2.0**self._doublings, settings.backoff_max_s)
        self._doublings = min(self._doublings + 1, _MOST_DOUBLINGS)
        return wait * self._spread()

    def adopt(self, settings: Supervisor) -> None:
        """Judge by other settings from now on; what happened counts on."""
        self._settings = settings

    def forget(self) -> None:
        """Begin anew, as after an operator's ``start``."""
        self._crashes.clear()
        self._doublings = 0

"""Circuit breakers, one for each download host: whoever keeps failing is left alone for a while."""

from __future__ import annotations

import time
from collections.abc import Callable

from pipelined.config.tree import Breaker as Settings

__all__ = ["Breaker", "Breakers"]

#: Hosts remembered at most; beyond it those that are not open are forgotten.
_HOSTS = 10_000


class Breaker:
    """Closed until ``failures`` in a row; open for ``open_s``; then half-open: one probe at a time.

    A probe that never reports counts as lost after another ``open_s``, and the next one is let through.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._failures = 0
        self._shut_until: float | None = None  # None: closed

    @property
    def state(self) -> str:
        """``closed``, ``open``, or ``half-open`` when the next call to ``allow`` is let through."""
        if self._shut_until is None:
            return "closed"
        return "open" if self._clock() < self._shut_until else "half-open"

    @property
    def wait(self) -> float:
        """Seconds until the next attempt is let through; 0 if it is already."""
        return 0.0 if self._shut_until is None else max(0.0, self._shut_until - self._clock())

    def allow(self) -> bool:
        """Whether an attempt may be made now. When half-open, the caller gets the one probe."""
        if self._shut_until is None:
            return True
        if self._clock() < self._shut_until:
            return False
        self._shut_until = self._clock() + self._settings.open_s  # until the probe reports, or is lost
        return True

    def success(self) -> None:
        """An attempt reached the host and was answered: closed again."""
        self._failures = 0
        self._shut_until = None

    def failure(self) -> None:
        """An attempt failed through the host's fault."""
        self._failures += 1
        if self._failures >= self._settings.failures:
            self._shut_until = self._clock() + self._settings.open_s


class Breakers:
    """The breakers of all hosts; a host without a recent failure costs nothing."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._hosts: dict[str, Breaker] = {}

    def allow(self, host: str) -> bool:
        """Whether an attempt on this host may be made now."""
        breaker = self._hosts.get(host)
        return breaker is None or breaker.allow()

    def wait(self, host: str) -> float:
        """Seconds until an attempt on this host is let through."""
        breaker = self._hosts.get(host)
        return 0.0 if breaker is None else breaker.wait

    def success(self, host: str) -> None:
        """An attempt reached this host and was answered."""
        self._hosts.pop(host, None)

    def failure(self, host: str) -> None:
        """An attempt failed through this host's fault."""
        breaker = self._hosts.get(host)
        if breaker is None:
            if len(self._hosts) >= _HOSTS:
                self._hosts = {name: each for name, each in self._hosts.items() if each.state == "open"}
            breaker = self._hosts[host] = Breaker(self._settings, self._clock)
        breaker.failure()

    def open_hosts(self) -> list[str]:
        """The hosts that are left alone at the moment."""
        return [host for host, breaker in self._hosts.items() if breaker.state == "open"]

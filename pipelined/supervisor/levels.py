"""How much the supervisor and each worker log: as configured, or as an operator wants it."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from pipelined.stats.slots import SharedStats

__all__ = ["AS_CONFIGURED", "LEVELS", "SUPERVISOR", "Levels"]

log = logging.getLogger("pipelined.supervisor")

LEVELS = ("debug", "info", "warning", "error")
AS_CONFIGURED = "default"
#: What the parent is called in the log, and by an operator.
SUPERVISOR = "supervisor"


class Levels:
    """Tells each worker its level through its slot, which it looks at twice a second, and itself.

    What an operator asked for lasts as long as this daemon, also for workers that start later.
    """

    def __init__(self, stats: SharedStats, configured: str) -> None:
        self._stats = stats
        self._configured = configured
        self._asked: dict[str, str] = {}

    def ask(self, level: str, names: Iterable[str]) -> None:
        """Have the workers of these types, or the supervisor, log from ``level`` on."""
        for name in names:
            if level == AS_CONFIGURED:
                self._asked.pop(name, None)
            else:
                self._asked[name] = level.upper()
            log.info("the log level of %s is %s now", name, self.of(name))
        self.tell()
        self._own()

    def adopt(self, configured: str) -> None:
        """Another level is the configured one from now on."""
        self._configured = configured
        self.tell()
        self._own()

    def tell(self) -> None:
        """Tell each worker that there is, also one that was just added."""
        for slot in self._stats.slots:
            slot.parent.log_at(logging.getLevelName(self.of(slot.worker)), asked=slot.worker in self._asked)

    def of(self, name: str) -> str:
        """The level of a worker type, or of the supervisor."""
        return self._asked.get(name, self._configured)

    def _own(self) -> None:
        logging.getLogger().setLevel(self.of(SUPERVISOR))

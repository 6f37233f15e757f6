"""The worker that looks after the tables: small files and a long log soon, everything else in rounds.

The work is done in a thread of its own, and the process ends without waiting for it: told to stop it is
gone within 0.2 s. Being cut off is nothing special, see pipelined/lake/maintenance.py.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from pipelined.config.work import Tables
from pipelined.errors import PipelinedError
from pipelined.lake.maintenance import Done, Maintenance
from pipelined.stats import registry as metrics
from pipelined.stats.slots import Child

__all__ = ["MaintenanceRuntime"]

_logger = logging.getLogger("pipelined.workers")
_BEAT_S = 0.1


@dataclass(slots=True)
class _Look:
    """What one look at all tables came to; the thread fills it, the worker counts it."""

    ok: int = 0
    failed: int = 0
    done: Done = field(default_factory=Done)
    finished: list[float] = field(default_factory=list)


class MaintenanceRuntime:
    """One worker process. ``run()`` returns when told to stop."""

    def __init__(
        self,
        settings: Tables,
        tables: Sequence[Maintenance],
        stats: Child,
        should_stop: Callable[[], bool],
    ) -> None:
        self._settings = settings
        self._tables = tables
        self._stats = stats
        self._should_stop = should_stop

    def run(self) -> None:
        """Look, wait, look again, until told to stop."""
        self._stats.ready()
        _logger.info("ready", extra={"tables": [table.url for table in self._tables]})
        while self._wait(self._settings.tend_seconds * random.uniform(0.8, 1.2)):
            look = _Look()
            thread = threading.Thread(target=self._look, args=(look,), daemon=True)
            thread.start()
            while thread.is_alive():
                if not self._wait(_BEAT_S):
                    return
            self._count(look)

    def _wait(self, seconds: float) -> bool:
        """Wait, giving a sign of life; False when told to stop."""
        end = time.monotonic() + seconds
        while not self._should_stop():
            self._stats.beat()
            left = end - time.monotonic()
            if left <= 0:
                return True
            time.sleep(min(left, _BEAT_S))
        return False

    def _look(self, look: _Look) -> None:
        for table in self._tables:
            try:
                if table.exists():
                    self._maintain(table, look)
                    look.ok += 1
            except PipelinedError as error:
                look.failed += 1
                _logger.warning("maintenance failed, and is tried again at the next look: %s", error)

    def _maintain(self, table: Maintenance, look: _Look) -> None:
        look.done += table.tend()
        hours = self._settings.maintenance_hours
        if not hours:
            return
        done = table.round(hours)
        if done is not None:
            look.done += done
            _logger.info(
                "maintained %s: %d files compacted, %d removed with %d bytes",
                table.url,
                *done,
                extra={"table": table.url},
            )
        look.finished.append(table.finished())

    def _count(self, look: _Look) -> None:
        stats = self._stats
        stats.add(metrics.MAINTENANCE, look.ok, "ok")
        stats.add(metrics.MAINTENANCE, look.failed, "failed")
        stats.add(metrics.COMPACTED, look.done.compacted)
        stats.add(metrics.SWEPT, look.done.bytes)
        stats.set(metrics.MAINTAINED, min(look.finished, default=0.0))
        stats.set(metrics.LAST_PROGRESS, time.time())

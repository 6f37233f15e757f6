"""How fast each worker works, measured by the supervisor now and then and told in its page of the slot."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pipelined.stats import registry
from pipelined.stats.slots import SharedStats, Slot

__all__ = ["EVERY_S", "Rates", "cpu_seconds"]

#: How often to look, and over how many looks a rate is taken: long enough to see through single batches.
EVERY_S = 2.0
_LOOKS = 5
_TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class _Look:
    when: float
    pid: int
    records_in: int
    records_out: int
    cpu: float


class Rates:
    """Records in and out per second, and per cent of a CPU, of each worker over the last ten seconds.

    Call :meth:`look` every ``EVERY_S`` seconds. A process that is younger is measured over its life, from
    its second look on; one that is no more is not measured.
    """

    def __init__(self, stats: SharedStats, clock: Callable[[], float] = time.monotonic) -> None:
        self._stats = stats
        self._clock = clock
        self._looks: dict[tuple[str, int], deque[_Look]] = {}

    def look(self) -> None:
        """Look at every worker that there is now, and tell what came of it since earlier looks."""
        for slot in self._stats.slots:
            looks = self._looks.setdefault((slot.worker, slot.index), deque(maxlen=_LOOKS + 1))
            look = self._of(slot)
            if looks and (look is None or looks[-1].pid != look.pid):
                looks.clear()
            if look is not None:
                looks.append(look)
            slot.parent.measure(_between(looks[0], looks[-1]) if len(looks) > 1 else None)

    def _of(self, slot: Slot) -> _Look | None:
        pid, child = slot.parent.pid, slot.child
        cpu = cpu_seconds(pid) if pid else None
        if cpu is None:
            return None
        taken, given = child.counter(registry.RECORDS_IN), child.counter(registry.RECORDS_OUT)
        return _Look(self._clock(), pid, taken, given, cpu)


def _between(first: _Look, last: _Look) -> tuple[float, float, float]:
    seconds = max(1e-3, last.when - first.when)
    return (
        (last.records_in - first.records_in) / seconds,
        (last.records_out - first.records_out) / seconds,
        100 * (last.cpu - first.cpu) / seconds,
    )


def cpu_seconds(pid: int) -> float | None:
    """The time that a process and the children it has waited for spent on a CPU; None where it has ended."""
    try:
        # What stands before the last parenthesis is its name, which may hold anything.
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    return sum(map(int, fields[11:15])) / _TICK

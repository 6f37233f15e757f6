"""How the supervisor's own loop does, in words of the shared memory that the parent alone writes."""

from __future__ import annotations

import time
from typing import Any

__all__ = ["SLOW_S", "TURN_METRICS", "Turns"]

#: A turn that takes longer counts as slow: for so long a dead worker or an operator waited.
SLOW_S = 0.01
_SLOW_NS = int(SLOW_S * 1e9)

#: Name, type, label and meaning of what the parent knows of itself.
TURN_METRICS: tuple[tuple[str, str, str, str], ...] = (
    ("pipelined_supervisor_turns_total", "counter", "", "Turns of the supervisor's loop."),
    (
        "pipelined_supervisor_slow_turns_total",
        "counter",
        "",
        "Turns that took longer than 10 ms. Many: too little processor time on the machine, or a slow disk.",
    ),
    ("pipelined_supervisor_longest_turn_seconds", "gauge", "", "The longest turn since the daemon started."),
    (
        "pipelined_supervisor_longest_turn_cpu_seconds",
        "gauge",
        "",
        "The most processor time of one turn: far less than the longest turn, where others held it up.",
    ),
    (
        "pipelined_supervisor_silent_seconds",
        "gauge",
        "",
        "Time since the supervisor's loop last turned. It turns at least every two seconds, or it hangs.",
    ),
    ("pipelined_supervisor_forks_total", "counter", "", "Processes that the supervisor has forked."),
    (
        "pipelined_supervisor_longest_fork_seconds",
        "gauge",
        "",
        "The longest fork, which is part of its turn.",
    ),
)


class Turns:
    """What one turn after the other took. A turn is all that the loop does between two waits."""

    def __init__(self, words: memoryview) -> None:
        self._words = words

    def begin(self) -> None:
        """A new supervisor: the longest ones begin at zero, what is counted goes on."""
        words = self._words
        words[2] = words[3] = words[5] = words[6] = 0

    def turned(self, wall_ns: int, cpu_ns: int) -> None:
        """A turn is over."""
        words = self._words
        words[0] += 1
        if wall_ns > _SLOW_NS:
            words[1] += 1
        words[2] = max(words[2], wall_ns)
        words[3] = max(words[3], cpu_ns)
        words[6] = time.monotonic_ns()

    @property
    def silent_s(self) -> float:
        """How long ago the last turn ended; 0 before the first one."""
        last = self._words[6]
        return (time.monotonic_ns() - last) / 1e9 if last else 0.0

    def forked(self, wall_ns: int) -> None:
        """A process was forked."""
        self._words[4] += 1
        self._words[5] = max(self._words[5], wall_ns)

    def values(self) -> tuple[float, ...]:
        """The values of TURN_METRICS, in their order."""
        turns, slow, longest, cpu, forks, fork, _ = self._words
        return (turns, slow, longest / 1e9, cpu / 1e9, self.silent_s, forks, fork / 1e9)

    def told(self) -> dict[str, Any]:
        """For the status; in milliseconds."""
        turns, slow, longest, cpu, forks, fork, _ = self._words
        return {
            "turns": turns,
            "slow_turns": slow,
            "longest_ms": round(longest / 1e6, 3),
            "longest_cpu_ms": round(cpu / 1e6, 3),
            "silent_s": round(self.silent_s, 3),
            "forks": forks,
            "longest_fork_ms": round(fork / 1e6, 3),
        }

"""Timers by deadline on the monotonic clock: the one way in which the supervisor waits."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable

__all__ = ["Timers"]

#: So late that the process itself cannot have been running: a frozen container, a paused machine.
_FROZEN_S = 5.0
#: What the workers get to show that they live, before anything is judged.
_THAW_S = 1.0
#: After so long the other calls that are due wait for the next turn of the loop, which must not be held up.
_TURN_S = 0.004


class Timers:
    """At most one pending call for each key.

    After the whole process stood still (it was frozen with its workers, or the machine was), every
    deadline moves by that time and a second: nobody is called hung for a time in which nobody could run.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._pending: dict[Hashable, tuple[float, Callable[[], None], bool]] = {}

    def set(self, key: Hashable, delay: float, call: Callable[[], None], *, alone: bool = False) -> None:
        """Call ``call`` in ``delay`` seconds, instead of what was pending for ``key``.

        ``alone`` is for what takes long: no other call is made in its turn of the loop.
        """
        self._pending[key] = (self._clock() + delay, call, alone)

    def cancel(self, key: Hashable) -> None:
        """Forget what is pending for ``key``, if anything is."""
        self._pending.pop(key, None)

    def wait(self) -> float | None:
        """Seconds to the next deadline, 0 if it has passed; None without any."""
        if not self._pending:
            return None
        return max(0.0, min(when for when, *_ in self._pending.values()) - self._clock())

    def run(self) -> None:
        """Make the calls that are due, by their deadlines; the rest of them next time, if it takes long."""
        if not self._pending:
            return
        now = self._clock()
        late = now - min(when for when, *_ in self._pending.values())
        if late > _FROZEN_S:
            shift = late + _THAW_S
            self._pending = {
                key: (when + shift, call, alone) for key, (when, call, alone) in self._pending.items()
            }
        due = sorted(
            (when, number, key)
            for number, (key, (when, *_)) in enumerate(self._pending.items())
            if when <= now
        )
        called = False
        for when, _, key in due:
            pending = self._pending.get(key)
            # An earlier call of this round may have cancelled it or set it anew.
            if pending is None or pending[0] != when:
                continue
            _, call, alone = pending
            if alone and called:
                return  # it is the first of the next turn
            del self._pending[key]
            call()
            called = True
            if alone or self._clock() - now > _TURN_S:
                return

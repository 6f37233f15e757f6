"""The second page of a worker's slot: what the supervisor knows of the worker, and wants of it."""

from __future__ import annotations

import enum

__all__ = ["CHANGES", "Parent", "WorkerState"]

#: The word of the header that counts how often a place was taken or given up.
CHANGES = 4
#: The words of the restarts in all, and of those before this supervisor; they go on, the others do not.
_RESTARTS, _EARLIER = 2, 14
#: The word that tells whether there is a worker, with what it says while there is, and where there was one.
_PLACE = 7
_TAKEN, _LEFT = 1, 2


class WorkerState(enum.IntEnum):
    """The states of a worker, as supervisord names them."""

    STOPPED = 0
    STARTING = 1
    RUNNING = 2
    STOPPING = 3
    BACKOFF = 4
    EXITED = 5
    FATAL = 6


class Parent:
    """The page that the supervisor writes: what it knows of the worker."""

    def __init__(self, page: memoryview, header: memoryview) -> None:
        self._words = page.cast("Q")
        self._floats = page.cast("d")
        self._header = header

    def inherit(self) -> None:
        """The supervisor is a new one: what the one before knew and wanted is over, but its total goes on."""
        self._words[_EARLIER] = self._words[_RESTARTS]
        for word in range(_EARLIER):
            if word not in {_RESTARTS, _PLACE}:
                self._words[word] = 0

    def occupy(self) -> None:
        """There is a worker of this type and index from now on."""
        self._words[_PLACE] = _TAKEN
        self._header[CHANGES] += 1

    def vacate(self) -> None:
        """There is none any more, nor an operator's wish for it."""
        self.pause(False)
        self._words[_EARLIER] = self._words[_RESTARTS]
        self._words[_PLACE] = _LEFT
        self._header[CHANGES] += 1

    @property
    def occupied(self) -> bool:
        """Whether there is such a worker."""
        return self._words[_PLACE] == _TAKEN

    @property
    def used(self) -> bool:
        """Whether there ever was one: else nothing stands in either page."""
        return self._words[_PLACE] != 0

    def pause(self, paused: bool) -> None:
        """Tell the worker whether it is to take no more work, for as long as an operator wants it so."""
        self._words[8] = paused

    @property
    def paused(self) -> bool:
        """Whether an operator wants it to take no more work."""
        return self._words[8] == 1

    def log_at(self, level: int, *, asked: bool) -> None:
        """Tell the worker from which level on to log, and whether an operator asked for that."""
        self._words[13] = level << 1 | asked

    @property
    def log_level(self) -> int:
        """The level that the worker is to log from; 0 where nobody told any."""
        return self._words[13] >> 1

    @property
    def log_level_asked(self) -> bool:
        """Whether an operator asked for that level; else it is the configured one."""
        return bool(self._words[13] & 1)

    def write(
        self,
        *,
        state: WorkerState,
        pid: int,
        restarts: int,
        last_exit: int,
        since: float,
        next_try: float,
    ) -> None:
        """Tell the state; ``last_exit`` is an exit code, or minus the signal; times are epoch seconds."""
        self._words[0] = state
        self._words[1] = pid
        self._words[_RESTARTS] = self._words[_EARLIER] + restarts
        self._words[3] = last_exit & 0xFFFF
        self._floats[4] = since
        self._floats[5] = next_try

    def leave(self, leaving: bool) -> None:
        """Tell the worker, before it is told to stop, whether it stops for good and leaves its group."""
        self._words[6] = leaving

    def measure(self, rates: tuple[float, float, float] | None) -> None:
        """Tell what was measured of it: records in and out per second, per cent of a CPU; None: not yet."""
        self._floats[9], self._floats[10], self._floats[11] = rates or (0.0, 0.0, 0.0)
        self._words[12] = 0 if rates is None else self.pid

    @property
    def measured(self) -> tuple[float, float, float] | None:
        """Records in and out per second and per cent of a CPU, of its present process; None: not known."""
        if not self.pid or self._words[12] != self.pid:  # of the process before, if of any
            return None
        return self._floats[9], self._floats[10], self._floats[11]

    @property
    def leaving(self) -> bool:
        """Whether the worker leaves its group when it stops."""
        return self._words[6] == 1

    @property
    def state(self) -> WorkerState:
        """The worker's state."""
        return WorkerState(self._words[0])

    @property
    def pid(self) -> int:
        """Its process, 0 where it has none."""
        return self._words[1]

    @property
    def restarts(self) -> int:
        """How often it was restarted after a crash, by this supervisor, since there is one."""
        return self._words[_RESTARTS] - self._words[_EARLIER]

    @property
    def all_restarts(self) -> int:
        """How often one of this place was, also by those before it whose counters go on."""
        return self._words[_RESTARTS]

    @property
    def last_exit(self) -> int:
        """Its last exit code, or minus the signal that ended it."""
        value = self._words[3]
        return value - 0x10000 if value & 0x8000 else value

    @property
    def since(self) -> float:
        """When it came into this state, epoch seconds."""
        return self._floats[4]

    @property
    def next_try(self) -> float:
        """When it is started again, epoch seconds; 0 where it is not."""
        return self._floats[5]

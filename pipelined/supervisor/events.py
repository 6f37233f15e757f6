"""What the supervisor did and why: the last of it in memory, more of it in a file that outlives it."""

from __future__ import annotations

import enum
import errno
import json
import logging
import os
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipelined.errors import UnavailableError
from pipelined.logs.masking import mask
from pipelined.supervisor.timers import Timers

__all__ = ["Event", "Events", "read"]

log = logging.getLogger("pipelined.supervisor")

_NAME = "events.jsonl"
#: The file is put aside at this size, and the one put aside before is gone: about 10,000 events are kept.
_MOST_BYTES = 1_000_000
_KEPT = 500
_MUCH = 100
_RETRY_S = 5.0
#: However slow the disk is, writing to it takes this part of the loop's time at most.
_SHARE = 0.1
_QUICK_S = 0.002


class Event(enum.StrEnum):
    """What can have happened."""

    DAEMON_STARTED = "daemon-started"
    DAEMON_UP = "daemon-up"
    DAEMON_STOPPING = "daemon-stopping"
    DAEMON_ENDED = "daemon-ended"
    SIGNAL = "signal"
    COMMAND = "command"
    REFUSED = "refused"
    OUTCOME = "outcome"
    STARTED = "started"
    READY = "ready"
    PAUSED = "paused"
    RESUMED = "resumed"
    DRAINING = "draining"
    MEMORY = "memory"
    HUNG = "hung"
    KILLED = "killed"
    STOPPED = "stopped"
    DIED = "died"
    BACK_OFF = "back-off"
    FATAL = "fatal"
    GAP = "gap"


class Events:
    """The last 500 events, and ``events.jsonl`` in the state folder: one JSON object a line.

    An event has ``number`` (ascending, also from one daemon to the next), ``time``, ``event``, and where
    there is one ``worker`` (a type, or a process of it as ``download/0``) and ``why``; others have more.
    ``flush`` writes what was added. What a full disk does not take is written when there is room again, the
    last 500 of it; how many are missing is then an event of its own.
    """

    def __init__(self, state_dir: str, timers: Timers, clock: Callable[[], float] = time.time) -> None:
        self.path = Path(state_dir) / _NAME
        self._timers = timers
        self._clock = clock
        self._last: deque[dict[str, Any]] = deque(maxlen=_KEPT)
        self._unwritten: deque[bytes] = deque()
        self._number = 0
        self._missing = 0
        self._failing = False
        self._waits = False

    def add(self, event: Event, why: str = "", *, worker: str = "", **more: Any) -> None:
        """It has happened, now. What is secret in ``why`` is masked; what of ``more`` is None is left out."""
        now = self._clock()
        # By the clock, so that the numbers go on after those of a daemon of which nothing is known here.
        self._number = max(self._number + 1, int(now * 1e6))
        told = {"number": self._number, "time": _time(now), "event": str(event)}
        told |= {key: value for key, value in (("worker", worker), ("why", mask(why))) if value}
        told |= {key: value for key, value in more.items() if value is not None}
        self._last.append(told)
        self._unwritten.append(json.dumps(told, ensure_ascii=False).encode(errors="replace") + b"\n")
        if len(self._unwritten) > _KEPT:
            self._unwritten.popleft()
            self._missing += 1

    def after(self, number: int) -> list[dict[str, Any]]:
        """Those of the last 500 that are newer than ``number``, the oldest first."""
        return [each for each in self._last if each["number"] > number]

    def flush(self, *, busy: bool = False, last: bool = False) -> None:
        """Write what was added since; later, where the disk is slow or does not take it. ``last``: now.

        While the loop is ``busy``, what it has to do at once comes first, unless there is much to write.
        """
        if not self._unwritten or (self._waits and not last):
            return
        if busy and len(self._unwritten) < _MUCH:
            return
        began = time.monotonic()
        try:
            self._write()
        except OSError as error:
            self._wait(_RETRY_S)
            if not self._failing:
                self._failing = True
                log.warning(
                    "events cannot be written to %s: %s; the last %d stay in memory until they can be",
                    self.path,
                    error.strerror,
                    _KEPT,
                )
            return
        if self._failing:
            self._failing = False
            log.info("events are written to %s again, %d are missing in it", self.path, self._missing)
        missing, self._missing = self._missing, 0
        if missing:
            self.add(Event.GAP, f"{missing} events before those of the last {_KEPT} could not be written")
        if missing or time.monotonic() - began > _QUICK_S:
            self._wait((time.monotonic() - began) / _SHARE)

    def _wait(self, seconds: float) -> None:
        self._waits = True
        self._timers.set(self, seconds, self._again)

    def _again(self) -> None:
        self._waits = False
        self.flush()

    def _write(self) -> None:
        fd = self._opened()
        try:
            size = os.fstat(fd).st_size
            # A full disk, or the end of the machine, may have left half a line.
            torn = size > 0 and os.pread(fd, 1, size - 1) != b"\n"
            written = os.write(fd, b"\n" * torn + b"".join(self._unwritten)) - torn
        finally:
            os.close(fd)
        while self._unwritten and len(self._unwritten[0]) <= written:
            written -= len(self._unwritten.popleft())
        if self._unwritten:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _opened(self) -> int:
        """The file, opened for this one time: no child has to close it, and it may be moved away."""
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        fd = os.open(self.path, flags, 0o640)
        if os.fstat(fd).st_size < _MOST_BYTES:
            return fd
        os.close(fd)
        self.path.replace(_aside(self.path))
        return os.open(self.path, flags, 0o640)


def read(state_dir: str) -> list[dict[str, Any]]:
    """The events in the files of a state folder, the oldest first; whether a daemon runs or not.

    Lines that are not whole are passed over. Raises UnavailableError where a file may not be read.
    """
    path = Path(state_dir) / _NAME
    found: dict[int, dict[str, Any]] = {}
    # The one put aside last: should it be put aside between the two, all is read, some of it twice.
    for each in (path, _aside(path)):
        try:
            lines = each.read_bytes().splitlines()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise UnavailableError(
                f"the events in {each} cannot be read: {error.strerror}; run this as the daemon's user, one "
                f"of its group, or root"
            ) from error
        found |= {told["number"]: told for told in map(_parsed, lines) if told is not None}
    return [found[number] for number in sorted(found)]


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        told = json.loads(line)
    except ValueError:
        return None
    whole = isinstance(told, dict) and isinstance(told.get("number"), int)
    return told if whole and {"time", "event"} <= told.keys() else None


def _aside(path: Path) -> Path:
    return path.with_name(path.name + ".1")


def _time(epoch: float) -> str:
    return datetime.fromtimestamp(epoch, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

"""The signals of the supervisor, as bytes on a socket that its loop reads."""

from __future__ import annotations

import contextlib
import signal
import socket
from types import FrameType

__all__ = ["Signals"]

_HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _nothing(_number: int, _frame: FrameType | None) -> None:
    """The handler itself does nothing: the byte on the socket wakes the loop, which then acts."""


class Signals:
    """INT, TERM and HUP from ``open`` to ``close``; ``fileno`` is readable when some have arrived."""

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._before = {number: signal.signal(number, _nothing) for number in _HANDLED}
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)

    def fileno(self) -> int:
        """For a selector."""
        return self._reader.fileno()

    def received(self) -> list[signal.Signals]:
        """The signals since the last call, in order."""
        with contextlib.suppress(BlockingIOError):
            return [signal.Signals(byte) for byte in self._reader.recv(4096) if byte in _HANDLED]
        return []

    def close(self) -> None:
        """Put back the handlers that were there before."""
        self.forget()
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def forget(self) -> None:
        """Take no signals any more, as a child does that sets its own handlers."""
        signal.set_wakeup_fd(-1)
        self._reader.close()
        self._writer.close()

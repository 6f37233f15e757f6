"""The signals of the supervisor, as bytes on a socket that its loop reads."""

from __future__ import annotations

import contextlib
import faulthandler
import signal
import socket
from types import FrameType

__all__ = ["Signals", "harmless"]

#: Sent by programs that take this for another one, and by people who mean a worker's: no reason to end.
_MEANINGLESS = (signal.SIGUSR1, signal.SIGUSR2)
_HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, *_MEANINGLESS)


def harmless() -> None:
    """From now on this process does not end of QUIT, USR1 and USR2.

    At QUIT the stacks of all its threads are written to its error output, at once, whatever it is doing; the
    others are ignored. For a worker, and for the parent before its loop takes signals.
    """
    faulthandler.register(signal.SIGQUIT, 2, all_threads=True, chain=False)
    for number in _MEANINGLESS:
        signal.signal(number, signal.SIG_IGN)


def _nothing(_number: int, _frame: FrameType | None) -> None:
    """The handler itself does nothing: the byte on the socket wakes the loop, which then acts."""


class Signals:
    """INT, TERM, HUP, QUIT, USR1 and USR2, until ``close``; ``fileno`` is readable when some have arrived.

    When QUIT arrives, the stacks have been written as ``harmless`` says: also where the loop hangs.
    """

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        faulthandler.unregister(signal.SIGQUIT)  # it lies below, to be called first
        self._before = {number: signal.signal(number, _nothing) for number in _HANDLED}
        faulthandler.register(signal.SIGQUIT, 2, all_threads=True, chain=True)
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
        faulthandler.unregister(signal.SIGQUIT)
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def forget(self) -> None:
        """Take no signals any more, as a child does that sets its own handlers."""
        signal.set_wakeup_fd(-1)
        self._reader.close()
        self._writer.close()

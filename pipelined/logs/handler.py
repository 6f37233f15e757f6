"""A log handler that never makes the process wait long: what cannot be written is dropped and counted.

The standard error stream is shared with other processes, so its own flags stay as they are: a pipe or
terminal is opened once more, non-blocking; a socket (journald) is written with MSG_DONTWAIT; a file
never blocks.
"""

from __future__ import annotations

import logging
import os
import select
import socket
import stat
from collections.abc import Iterable

from pipelined.logs.context import fill
from pipelined.logs.repeats import Repeats
from pipelined.logs.rotation import RotatedFile

__all__ = ["PATIENCE_MS", "DescriptorHandler"]

#: How long one line may wait for a reader that is merely slow, in milliseconds. Once in vain, the reader
#: counts as stalled, and nothing waits until it takes something again.
PATIENCE_MS = 100
#: What a pipe takes whole or not at all, and what fits once poll() calls it writable.
_ATOMIC = select.PIPE_BUF


class DescriptorHandler(logging.Handler):
    """Writes lines to a file descriptor. ``dropped`` counts the lines that could not be written."""

    def __init__(self, descriptor: int, repeats: Repeats, patience_ms: int = PATIENCE_MS) -> None:
        super().__init__()
        self._patience_ms = patience_ms
        self.dropped = 0
        #: What its descriptor writes to, where that is a file of the daemon's own.
        self.file: RotatedFile | None = None
        self._told = 0
        self._repeats = repeats
        self._pid = os.getpid()
        self._stalled = False
        self._rest = b""
        self._descriptor = descriptor
        self._own: int | None = None
        self._socket: socket.socket | None = None
        mode = os.fstat(descriptor).st_mode
        self._may_block = stat.S_ISFIFO(mode) or os.isatty(descriptor)
        if stat.S_ISSOCK(mode):
            self._socket = socket.socket(fileno=os.dup(descriptor))
        elif self._may_block:
            self._own = _opened_again(descriptor)

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record, unless it was said often enough; before it what was counted until now."""
        fill(record)
        passes = self._repeats.passes(record)
        self._put_all(self._repeats.due())
        if passes:
            self._put_all([record])

    def tick(self) -> None:
        """Write the counts that are due, also when nothing else is logged."""
        self.acquire()
        try:
            self._put_all(self._repeats.due())
        finally:
            self.release()

    def flush(self) -> None:
        """As logging has it called at the end of the process."""
        self.conclude()

    def conclude(self) -> None:
        """Write everything that was only counted."""
        if self._pid != os.getpid():
            return  # just forked: these counts are the parent's
        self._put_all(self._repeats.due(all_of_them=True))
        self._tell_dropped()

    def put(self, record: logging.LogRecord) -> bool:
        """Whether the record was taken, or begun: the rest of what went out only in part goes first."""
        try:
            line = self.format(record)
        except (TypeError, ValueError, AttributeError, RecursionError) as error:
            line = f"a log record of {record.name} could not be formatted: {type(error).__name__}"
        return self._write(line)

    def _put_all(self, records: Iterable[logging.LogRecord]) -> None:
        for record in records:
            if self.put(record):
                self._tell_dropped()
            else:
                self.dropped += 1

    def _tell_dropped(self) -> None:
        lost = self.dropped - self._told
        if lost and self.put(_dropped_record(lost)):
            self._told += lost

    def close(self) -> None:
        """Give back what the handler opened; the descriptor it was given stays open."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._own is not None:
            os.close(self._own)
            self._own = None
        super().close()

    def _write(self, line: str) -> bool:
        """Whether the line is written, or begun: then its rest goes before the next one."""
        data = (line + "\n").encode("utf-8", "backslashreplace")
        if self._rest:
            self._rest = self._rest[self._put(self._rest) :]
            if self._rest:
                return False
        written = self._put(data)
        if written:
            self._rest = data[written:]
        return bool(written)

    def _put(self, data: bytes) -> int:
        """How much of ``data`` was taken; waits once for a reader that was not stalled before."""
        written = self._try(data)
        if written < len(data) and not self._stalled and self._writable(self._patience_ms):
            written += self._try(data[written:])
        self._stalled = written < len(data)
        return written

    def _try(self, data: bytes) -> int:
        """How much of ``data`` is taken at once, without waiting. A reader that is gone takes nothing."""
        try:
            if self._socket is not None:
                return self._socket.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
            if self._own is not None:
                return os.write(self._own, data)
            return self._write_shared(data)
        except OSError:
            return 0

    def _write_shared(self, data: bytes) -> int:
        """Through the descriptor itself: in pieces that fit, as far as it is writable."""
        if not self._may_block:
            return os.write(self._descriptor, data)
        written = 0
        while written < len(data) and self._writable(0):
            written += os.write(self._descriptor, data[written : written + _ATOMIC])
        return written

    def _writable(self, timeout_ms: int) -> bool:
        poll = select.poll()
        poll.register(self._own if self._own is not None else self._descriptor, select.POLLOUT)
        return any(event & select.POLLOUT for _, event in poll.poll(timeout_ms))


def _opened_again(descriptor: int) -> int | None:
    """The same pipe or terminal, non-blocking for us alone; None where we may not open it."""
    flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        return os.open(f"/proc/self/fd/{descriptor}", flags)
    except OSError:
        return None


def _dropped_record(count: int) -> logging.LogRecord:
    return logging.makeLogRecord(
        {
            "name": "pipelined.logs",
            "levelno": logging.WARNING,
            "levelname": "WARNING",
            "msg": "Log lines were dropped: their reader did not take them",
            "lines": count,
        }
    )

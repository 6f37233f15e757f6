"""Records with their fields to journald, in its own protocol: one datagram each, or a sealed memfd.

A field is ``NAME=value``, or where the value has lines: NAME, its length as 64 bits, the value. Trusted
fields (_PID, _SYSTEMD_UNIT, …) are journald's own. Documented: https://systemd.io/JOURNAL_NATIVE_PROTOCOL/
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import os
import re
import select
import socket
import struct
import sys
import termios
import time
from pathlib import Path

from pipelined.logs.events import code_of
from pipelined.logs.formats import JournalFormat
from pipelined.logs.handler import PATIENCE_MS, DescriptorHandler
from pipelined.logs.repeats import Repeats

__all__ = ["SOCKET", "Journal", "JournalHandler"]

SOCKET = Path("/run/systemd/journal/socket")

#: The names of ours that others query by; any other field is in capitals.
_NAMES = {"code": "ERROR_CODE", "event": "LOG_EVENT"}
_GIVEN = frozenset(
    "MESSAGE PRIORITY SYSLOG_IDENTIFIER LOGGER LEVEL WORKER INDEX INSTANCE "
    "CODE_FILE CODE_LINE CODE_FUNC THREAD EXCEPTION STACK".split()
)
_LONGEST_NAME = 64
_BUFFER = 4 * 1024 * 1024
_TOO_LARGE = frozenset({errno.EMSGSIZE, errno.ENOBUFS})
_GONE = frozenset({errno.ECONNREFUSED, errno.ENOTCONN, errno.ENOENT, errno.EPIPE, errno.ECONNRESET})
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
_LAST_WORDS_S = 0.2


class Journal:
    """The end of journald's socket that one process writes to. Nothing waits here but for ``patience_ms``."""

    def __init__(self, path: Path = SOCKET, patience_ms: int = PATIENCE_MS) -> None:
        self._path = path
        self.patience_ms = patience_ms
        self._socket: socket.socket | None = None
        self._stalled = False

    def connect(self) -> bool:
        """Whether journald is there, now or again."""
        self.close()
        kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        end = socket.socket(socket.AF_UNIX, kind)
        try:
            end.connect(str(self._path))
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
        except OSError:
            end.close()
            return False
        self._socket = end
        return True

    def close(self) -> None:
        """Give the socket back."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def send(self, data: bytes) -> bool | None:
        """Whether journald took a record; None where there is no journald."""
        for _ in range(2):
            if self._socket is None and not self.connect():
                return None
            try:
                sent = self._offer(data)
                if not sent and not self._stalled and self._takes_more():
                    sent = self._offer(data)
            except OSError as error:
                if error.errno not in _GONE:
                    return False
                self.close()
            else:
                self._stalled = not sent
                return sent
        return None

    def wait_until_read(self) -> None:
        """For a process that ends: of one that is gone, journald cannot tell the unit."""
        until = time.monotonic() + _LAST_WORDS_S
        with contextlib.suppress(OSError):
            while self._socket is not None and time.monotonic() < until:
                unread = fcntl.ioctl(self._socket, termios.TIOCOUTQ, b"\0\0\0\0")
                if not int.from_bytes(unread, sys.byteorder):
                    break
                time.sleep(0.001)

    def _offer(self, data: bytes) -> bool:
        assert self._socket is not None
        try:
            self._socket.send(data, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno not in _TOO_LARGE:
                raise
            return self._offer_file(data)
        return True

    def _offer_file(self, data: bytes) -> bool:
        """A record too large for a datagram goes as a file that nobody can change any more."""
        assert self._socket is not None
        file = os.memfd_create("pipelined.log", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.write(file, data)
            fcntl.fcntl(file, fcntl.F_ADD_SEALS, _SEALS)
            socket.send_fds(self._socket, [], [file], socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return False
        finally:
            os.close(file)
        return True

    def _takes_more(self) -> bool:
        assert self._socket is not None
        poll = select.poll()
        poll.register(self._socket, select.POLLOUT)
        return any(event & select.POLLOUT for _, event in poll.poll(self.patience_ms))


class JournalHandler(DescriptorHandler):
    """Writes to journald; where its socket is absent, lines with priorities to ``descriptor`` instead."""

    def __init__(self, descriptor: int, form: JournalFormat, repeats: Repeats, journal: Journal) -> None:
        super().__init__(descriptor, repeats, journal.patience_ms)
        self.setFormatter(form)
        self._form = form
        self._journal = journal

    def flush(self) -> None:
        """At the end of the process: give journald a moment to read what it was sent."""
        super().flush()
        self._journal.wait_until_read()

    def close(self) -> None:
        """Give back the socket as well."""
        self._journal.close()
        super().close()

    def put(self, record: logging.LogRecord) -> bool:
        """Whether the record was taken."""
        try:
            data = _packed(self._fields(record))
        except (TypeError, ValueError, AttributeError, RecursionError):
            return super().put(record)  # which tells that it could not be formatted
        taken = self._journal.send(data)
        return super().put(record) if taken is None else taken

    def _fields(self, record: logging.LogRecord) -> list[tuple[str, str]]:
        """Every field of the record, all of them masked."""
        form = self._form
        found = [
            ("MESSAGE", form.sentence(record)),
            ("PRIORITY", str(form.priority(record))),
            ("SYSLOG_IDENTIFIER", "pipelined"),
            ("LOGGER", record.name),
            ("LEVEL", record.levelname),
            ("WORKER", form.worker),
            ("INDEX", str(form.index)),
            ("CODE_FILE", record.pathname),
            ("CODE_LINE", str(record.lineno)),
            ("CODE_FUNC", record.funcName or ""),
            *((name.upper(), text) for name, text in form.trace(record).items()),
        ]
        if form.instance:
            found.append(("INSTANCE", form.instance))
        if record.threadName not in {None, "MainThread"}:
            found.append(("THREAD", str(record.threadName)))
        extras = form.extras(record)
        if form.worker != "supervisor":
            extras.setdefault("stage", form.worker)
        if (code := code_of(record)) is not None:
            extras["event"] = code
        for name, value in extras.items():
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            found.append((_field_name(name), text))
        return found


def _field_name(name: str) -> str:
    """A name that journald takes, and that hides none of ours."""
    upper = _NAMES.get(name) or re.sub(r"[^A-Z0-9_]", "_", name.upper()).lstrip("_0123456789") or "FIELD"
    return (f"EXTRA_{upper}" if upper in _GIVEN else upper)[:_LONGEST_NAME]


def _packed(fields: list[tuple[str, str]]) -> bytes:
    parts = []
    for name, value in fields:
        data = value.encode("utf-8", "backslashreplace")
        if b"\n" in data:
            parts.append(b"%s\n%s%s\n" % (name.encode(), struct.pack("<Q", len(data)), data))
        else:
            parts.append(b"%s=%s\n" % (name.encode(), data))
    return b"".join(parts)

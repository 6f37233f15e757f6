"""The pidfile: one daemon for each state folder, held by a lock that dies with its holders."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from pipelined.errors import AlreadyRunningError, UnavailableError

__all__ = ["Pidfile", "holder"]

_NAME = "pipelined.pid"
_PATIENCE_S = 1.0


class Pidfile:
    """``pipelined.pid`` in the state folder, held under flock(2); the pid in it is information only.

    Workers inherit the lock on purpose: as long as one of them lives, no other daemon can start beside
    it. The file is never removed, because a lock on a removed file locks nobody out.
    """

    def __init__(self, state_dir: str) -> None:
        self.path = Path(state_dir) / _NAME
        self._fd = -1

    def acquire(self) -> None:
        """Take the lock and write our pid.

        Raises AlreadyRunningError where another daemon holds it, UnavailableError where the file cannot
        be written. Waits up to a second first: the workers of a daemon that was killed need some
        milliseconds to go, and who looks at the lock holds it for a moment.
        """
        deadline = time.monotonic() + _PATIENCE_S
        while not self._try():
            if time.monotonic() > deadline:
                raise AlreadyRunningError(
                    f"another daemon (pid {_read(self.path) or 'unknown'}) holds {self.path}; stop it with "
                    f"`pipelinectl stop`, or give this one its own state_dir and runtime_dir"
                )
            time.sleep(0.01)
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, b"%d\n" % os.getpid(), 0)

    def _try(self) -> bool:
        try:
            self.path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise UnavailableError(
                f"the pidfile {self.path} cannot be opened: {error.strerror}; create the folder for this "
                f"user, or set state_dir to one that is writable"
            ) from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(fd).st_ino == self.path.stat().st_ino:
                self._fd, fd = fd, -1
        except (BlockingIOError, FileNotFoundError):
            pass  # held by another, or removed by hand meanwhile: both are "not yet"
        finally:
            if fd >= 0:
                os.close(fd)
        return self._fd >= 0

    def release(self) -> None:
        """Give the lock up, and leave no pid behind that is no longer ours."""
        if self._fd >= 0:
            os.ftruncate(self._fd, 0)
            os.close(self._fd)
            self._fd = -1


def holder(state_dir: str) -> int | None:
    """The pid of the daemon that holds the lock, 0 where it cannot be told; None where nobody does.

    Raises UnavailableError where the file may not be read.
    """
    path = Path(state_dir) / _NAME
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UnavailableError(
            f"the pidfile {path} cannot be read: {error.strerror}; run this as the daemon's user, or as root"
        ) from error
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read(path)
    finally:
        os.close(fd)
    return None


def _read(path: Path) -> int:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return 0

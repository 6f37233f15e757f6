"""The log file of a daemon in the background: all its processes write to it, and it stays small.

The parent renames a file that is large enough to ``.1`` and begins the next one; each process puts its
standard streams over to that, by dup2(2), when it next looks. Whatever is written before goes to the renamed
file, by whoever it is and however late: a hung worker's stacks, or a line on its way in another thread.
Nothing is copied, so nothing is lost or doubled, and nobody waits for anybody.
"""

from __future__ import annotations

import contextlib
import logging
import os
import stat
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from pipelined.config.tree import Config, Logs

__all__ = ["RotatedFile", "files", "is_behind", "log_file"]

_logger = logging.getLogger("pipelined.logs")

_STANDARD_STREAMS = (1, 2)
#: After a file that could not be put aside, on a full disk for example.
_AGAIN_S = 60.0


def log_file(config: Config) -> Path:
    """Where a daemon in the background logs."""
    return Path(config.state_dir) / "pipelined.log"


def files(path: Path) -> list[Path]:
    """The file and those before it, as far as they are there: the newest first."""
    older = [each for each in path.parent.iterdir() if each.stem == path.name and _number(each) > 0]
    return [path] * path.exists() + sorted(older, key=_number)


def _number(path: Path) -> int:
    return int(path.suffix[1:]) if path.suffix[1:].isdecimal() else 0


def is_behind(path: Path, descriptor: int) -> bool:
    """Whether that file is what the descriptor writes to."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except OSError:
        return False


class RotatedFile:
    """The file behind the standard streams of this process, and of those that it forks.

    Whoever makes it is the one that puts full files aside; the others follow. Only ``streams`` that write to
    the file now are ever put over.
    """

    def __init__(self, path: Path, settings: Logs, streams: Iterable[int] = _STANDARD_STREAMS) -> None:
        self._path = path.resolve()  # a link stays where it is
        self._most = int(settings.file_mb * 1_000_000)
        self._kept = settings.files_kept
        self._streams: Sequence[int] = [each for each in streams if is_behind(self._path, each)]
        self._owner = os.getpid()
        self._not_before = 0.0

    def look(self) -> None:
        """Now and then, in every process: begin the next file where this one is full, and go on in it."""
        if not self._streams:
            return
        aside = None
        if os.getpid() == self._owner and self._is_full():
            try:
                aside = self._put_aside()
            except OSError as error:
                self._not_before = time.monotonic() + _AGAIN_S
                _logger.warning("the log file %s is full and cannot be put aside: %s", self._path, error)
        if not is_behind(self._path, self._streams[0]):
            # Where that cannot be: at the next look. What is written meanwhile is in the file before.
            with contextlib.suppress(OSError):
                self._go_on()
        if aside is not None:
            _logger.info("the log goes on in a new file; what was logged before is in %s", aside)

    def _is_full(self) -> bool:
        if not self._most or time.monotonic() < self._not_before:
            return False
        return os.fstat(self._streams[0]).st_size >= self._most and is_behind(self._path, self._streams[0])

    def _put_aside(self) -> Path:
        following = self._path.with_name(f"{self._path.name}.new")
        # Made first: where that fails, nothing has happened.
        descriptor = os.open(following, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.fchmod(descriptor, stat.S_IMODE(os.fstat(self._streams[0]).st_mode))
        finally:
            os.close(descriptor)
        for each in reversed(files(self._path)):
            if _number(each) >= self._kept:
                each.unlink()
            else:
                each.rename(self._numbered(_number(each) + 1))
        following.rename(self._path)
        return self._numbered(1)

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")

    def _go_on(self) -> None:
        """The name has another file now, or none where somebody took it away."""
        makes = os.O_CREAT if os.getpid() == self._owner else 0
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | makes, 0o666)
        try:
            for stream in self._streams:
                os.dup2(descriptor, stream)
        finally:
            os.close(descriptor)

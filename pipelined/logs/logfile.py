"""The log of a daemon in the background, read from its end; also across the files that it goes through."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from pipelined.logs.reading import Entry, Wanted, entries, seconds
from pipelined.logs.rotation import files, is_behind

__all__ = ["LogFile"]

_CHUNK = 1 << 20
_POLL_S = 0.2
#: Of those followed: whoever is late, or hangs, still writes to one that was put aside.
_FOLLOWED = 32


class LogFile:
    """A file that processes append to, and those that were put aside before it."""

    def __init__(self, path: Path) -> None:
        self._path = path.resolve()
        self._parts: list[_Part] = []  # the newest first

    def last(self, wanted: Wanted, count: int | None) -> list[Entry]:
        """The last ``count`` entries that are wanted, all of them for None. Raises OSError."""
        found: list[Entry] = []
        parts = self._opened()
        if not parts:
            raise FileNotFoundError(2, os.strerror(2), str(self._path))
        is_enough = False
        for part in parts:
            if is_enough:
                part.skip()
                continue
            left = None if count is None else count - len(found)
            before, is_early = part.last(wanted, left)
            found = before + found
            is_enough = is_early or left == len(before)
        self._parts = parts
        self._forget()
        return found

    def follow(self, wanted: Wanted) -> Iterator[Entry]:
        """What is appended from now on, for as long as one likes; also to the files that come after it."""
        while True:
            self._parts = self._opened(self._parts[0]) + self._parts
            for part in reversed(self._parts):
                yield from (entry for entry in entries(part.appended()) if wanted.takes(entry))
            self._forget()
            time.sleep(_POLL_S)

    def close(self) -> None:
        """Give back what is open."""
        self._forget(0)

    def _forget(self, kept: int = _FOLLOWED) -> None:
        while len(self._parts) > kept:
            self._parts.pop().close()

    def _opened(self, known: _Part | None = None) -> list[_Part]:
        """The newest first; those only that are newer than ``known``, or in its place."""
        found: list[_Part] = []
        for path in files(self._path):
            try:
                part = _Part(path.open("rb"))
            except FileNotFoundError:
                continue  # put aside a moment ago: it comes again, by its next name
            if known is not None and part.is_same(known):
                part.close()
                return found
            if any(part.is_same(other) for other in found):
                part.close()
            else:
                found.append(part)
        # Somebody took the known one away: what is in its place counts, and nothing that was there before.
        while known is not None and found and not (len(found) == 1 and found[0].is_at(self._path)):
            found.pop().close()
        return found


class _Part:
    """One file, from its beginning; it stays open, so that no other can be taken for it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._status = os.fstat(file.fileno())
        self._read = 0

    def is_same(self, other: _Part) -> bool:
        return os.path.samestat(self._status, other._status)

    def is_at(self, path: Path) -> bool:
        return is_behind(path, self._file.fileno())

    def close(self) -> None:
        self._file.close()

    def skip(self) -> None:
        """What stands there now is of no interest."""
        self._read = os.fstat(self._file.fileno()).st_size

    def last(self, wanted: Wanted, count: int | None) -> tuple[list[Entry], bool]:
        """The last entries that are wanted, and whether what stands before them is too early to matter."""
        size = os.fstat(self._file.fileno()).st_size
        span = _CHUNK
        while True:
            start = max(0, size - span)
            self._file.seek(start)
            data = self._file.read(size - start)
            self._read = start + data.rfind(b"\n") + 1
            lines = data[: self._read - start].splitlines()
            told = list(entries(lines[1:] if start else lines))
            found = [entry for entry in told if wanted.takes(entry)]
            timed = next((seconds(entry) for entry in told if "time" in entry), None)
            early = bool(wanted.since and timed is not None and timed < wanted.since)
            if not start or early or (count is not None and len(found) >= count):
                return found[len(found) - min(count, len(found)) :] if count is not None else found, early
            span *= 4

    def appended(self) -> list[bytes]:
        """The whole lines that came since; from its beginning where it was emptied."""
        size = os.fstat(self._file.fileno()).st_size
        if size < self._read:
            self._read = 0
        self._file.seek(self._read)
        data = self._file.read(size - self._read)
        whole = data.rfind(b"\n") + 1
        self._read += whole
        return data[:whole].splitlines()

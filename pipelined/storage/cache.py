"""The cache folder: files between their download and their upload.

``{cache_dir}/{trace_id}/{filename}`` holds complete files; ``{cache_dir}/.tmp/{process}/`` what is being
written, each process in a folder of its own that it keeps locked while it lives, so that what a dead one
left behind can be told and swept away, whatever its number was.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import logging
import os
import shutil
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from pipelined.messages.attachments import sanitise
from pipelined.storage.disk import disk_error

__all__ = ["Cache"]

log = logging.getLogger("pipelined.storage")

_TEMPORARY = ".tmp"  # no trace id has this folder: sanitising strips leading dots
_LOCK = "lock"
#: Most folders one sweep looks at; the next goes on with whatever is left then.
_SWEEP_LIMIT = 100_000


class Cache:
    """The cache folder of this host, shared by its download and upload processes."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)
        self._own: str | None = None
        self._lock = -1
        self._numbers = itertools.count()

    def target(self, trace_id: str, blob_path: str) -> str:
        """Where the file of an attachment belongs. Never outside of the cache folder."""
        name = sanitise(blob_path.rpartition("/")[2], "attachment")
        return f"{self.root}/{sanitise(trace_id, '_')}/{name}"

    def temporary(self) -> str:
        """A new name for a file that is being written. Raises DependencyError if there can be none."""
        if self._own is None:
            self._own = self._own_folder()
        return f"{self._own}/{next(self._numbers)}"

    def abandon(self, path: str) -> None:
        """Take a new temporary folder: somebody emptied the one of this temporary name under us."""
        if os.path.dirname(path) == self._own:  # noqa: PTH120 - temporary names are text
            log.warning(
                "somebody emptied the cache folder while files were being written; they are fetched again. "
                "Leave it to pipelined, which sweeps it of what nobody needs",
                extra={"cache_dir": str(self.root)},
            )
            os.close(self._lock)  # so that a sweep takes what is left of it
            self._own = None

    def holds(self, path: str) -> bool:
        """Whether a path is one of this cache folder's, whether or not a file is there."""
        file = Path(path)
        return file.parent.parent == self.root and ".." not in file.parts

    def remove(self, path: str) -> None:
        """Remove a file, and its folder when that was the last one in it. What is gone is fine.

        A path outside of the cache folder is left alone. Raises DependencyError where the disk fails.
        """
        file = Path(path)
        if not self.holds(path):
            log.warning(
                "a file to remove does not lie in the cache folder; it is left alone",
                extra={"path": path, "cache_dir": str(self.root)},
            )
            return
        try:
            file.unlink(missing_ok=True)
        except OSError as error:
            raise disk_error(error, path) from error
        with contextlib.suppress(OSError):  # not empty, or a neighbour was faster
            file.parent.rmdir()

    def sweep(self, hours: float, stop: threading.Event | None = None) -> int:
        """Remove what dead processes were writing, and files older than ``hours``; returns how many.

        Ends early when ``stop`` is set.
        """
        removed = self._sweep_temporary()
        oldest = time.time() - hours * 3600
        for folder in itertools.islice(_folders(self.root), _SWEEP_LIMIT):
            if stop is not None and stop.is_set():
                break
            removed += _sweep_folder(folder, oldest)
        if removed:
            log.info("swept the cache folder", extra={"files": removed, "cache_dir": str(self.root)})
        return removed

    def close(self) -> None:
        """Remove this process's temporary folder."""
        if self._own is not None:
            shutil.rmtree(self._own, ignore_errors=True)
            os.close(self._lock)
            self._own = None

    def _own_folder(self) -> str:
        """Make, and lock, the temporary folder of this process."""
        try:
            while True:
                own = self.root / _TEMPORARY / uuid.uuid4().hex
                own.mkdir(mode=0o750, parents=True)
                self._lock = os.open(own / _LOCK, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o640)
                fcntl.flock(self._lock, fcntl.LOCK_EX)
                if (own / _LOCK).exists():
                    return str(own)
                os.close(self._lock)  # swept away before it was locked
        except OSError as error:
            raise disk_error(error, self.root / _TEMPORARY) from error

    def _sweep_temporary(self) -> int:
        removed = 0
        for folder in _folders(self.root / _TEMPORARY, hidden=True):
            try:
                lock = os.open(folder / _LOCK, os.O_WRONLY | os.O_CLOEXEC)
            except OSError:
                continue  # just being made, or removed by another sweep
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                removed += max(0, sum(1 for _ in folder.iterdir()) - 1)
                shutil.rmtree(folder, ignore_errors=True)
            except OSError:
                continue  # its process lives
            finally:
                os.close(lock)
        return removed


def _folders(root: Path, *, hidden: bool = False) -> Iterator[Path]:
    try:
        with os.scandir(root) as entries:
            for entry in entries:
                if (hidden or not entry.name.startswith(".")) and entry.is_dir(follow_symlinks=False):
                    yield Path(entry.path)
    except FileNotFoundError:
        return  # nothing was cached yet


def _sweep_folder(folder: Path, oldest: float) -> int:
    """Remove the old files of one folder, and the folder when it is old and empty."""
    removed = 0
    with contextlib.suppress(OSError):  # a neighbour is tidying the same folder
        with os.scandir(folder) as entries:
            for entry in entries:
                if (
                    entry.is_file(follow_symlinks=False)
                    and entry.stat(follow_symlinks=False).st_mtime < oldest
                ):
                    Path(entry.path).unlink(missing_ok=True)
                    removed += 1
        folder.rmdir()
    return removed

"""Durable placement: a written file gets its final name only when complete, and counts only when on disk.

A batch is whatever waits when a thread comes free: one file when there is little to do, more the more there
is. Data first, then names, then the folders, so that after a crash at any point a final name stands for a
whole file. A few files are synced one by one; from ``_MANY`` on the whole file system is, twice a batch:
for 10 kB files in folders of their own on journaled ext4 that is 3,500 files/s instead of 970.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from typing import NamedTuple

from pipelined.crashpoints import Point, crashpoint
from pipelined.errors import BugError, RecordError
from pipelined.storage.disk import create, disk_error, sync_file_system, sync_folder, write_all

__all__ = ["LARGEST_BATCH", "Group", "Item", "Placed", "Placer", "place"]

log = logging.getLogger("pipelined.storage")

_MANY = 4
#: Most files that one thread takes at once.
LARGEST_BATCH = 256
#: Times a folder is made again that a neighbour's tidying removed before the file arrived.
_TRIES = 10


class Item(NamedTuple):
    """A file to place: its temporary name, and where it belongs below ``root``.

    It is written, and ``file`` its open descriptor, or it is still to be written, and ``body`` all of it
    (``file`` is negative then).
    """

    key: Hashable
    file: int
    source: str
    target: str
    root: str
    body: bytes = b""


class Placed(NamedTuple):
    """What became of an item: durable under its final name, or ``error``."""

    key: Hashable
    error: RecordError | None = None


def place(items: Sequence[Item]) -> list[Placed]:
    """Place files, durably, and close them. All lie on one file system.

    A file already under the final name is replaced. Where the disk fails, the files of the batch are
    removed, and each has a DependencyError.
    """
    files = [item.file for item in items if item.file >= 0]
    try:
        for item in items:
            if item.file < 0:
                files.append(create(item.source))
                write_all(files[-1], item.body)
        crashpoint(Point.FILE_WRITTEN)
        _sync_data(files)
        crashpoint(Point.FILE_SYNCED)
        for item in items:
            _rename(item)
        crashpoint(Point.FILE_RENAMED)
        _sync_names(items, files[0])
        crashpoint(Point.FILE_PLACED)
    except OSError as error:
        for item in items:
            with contextlib.suppress(OSError):  # moved already, or the disk is gone
                os.unlink(item.source)  # noqa: PTH108 - paths are text on the path of every file
        return [Placed(item.key, disk_error(error, item.target)) for item in items]
    finally:
        for file in files:
            os.close(file)
    return [Placed(item.key) for item in items]


def _sync_data(files: Sequence[int]) -> None:
    if len(files) >= _MANY:
        sync_file_system(files[0])
        return
    for file in files:
        os.fsync(file)


def _rename(item: Item) -> None:
    """Give a file its final name, in a folder that is made where it is missing."""
    folder = os.path.dirname(item.target)  # noqa: PTH120
    for attempt in range(_TRIES):
        try:
            # Most often it is missing, and its parent is there: one call instead of makedirs' several.
            with contextlib.suppress(FileExistsError):
                os.mkdir(folder, 0o750)  # noqa: PTH102
            os.rename(item.source, item.target)  # noqa: PTH104
        except FileNotFoundError:
            # The parent is missing too, or a neighbour just removed the folder because it was empty.
            if attempt + 1 == _TRIES:
                raise
            os.makedirs(folder, 0o750, exist_ok=True)  # noqa: PTH103
        else:
            return


def _sync_names(items: Sequence[Item], file: int) -> None:
    """Make the names durable; ``file`` is any open file of the same file system."""
    if len(items) >= _MANY:
        sync_file_system(file)
        return
    folders = set()
    for item in items:
        folder = item.target
        while len(folder) > len(item.root):  # up to the root: a folder may be new, by us or a neighbour
            folder = os.path.dirname(folder)  # noqa: PTH120
            folders.add(folder)
    for folder in folders:
        # A folder that is gone had its file taken out again, by an upload of the same attachment.
        with contextlib.suppress(FileNotFoundError):
            sync_folder(folder)


class Group:
    """Lets threads that each place one file share their syncs: whoever comes first takes all that wait."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[Item, Future[Placed]]] = deque()
        self._turn = threading.Lock()

    def place(self, item: Item) -> Placed:
        """Place one file, together with those of other threads; returns when it is durable, or failed."""
        mine: Future[Placed] = Future()
        self._waiting.append((item, mine))
        with self._turn:
            if not mine.done():
                batch = [self._waiting.popleft() for _ in range(len(self._waiting))]
                try:
                    results = place([each for each, _ in batch])
                except BaseException as error:
                    for _, future in batch:
                        future.set_exception(error)
                    raise
                for result, (_, future) in zip(results, batch, strict=True):
                    future.set_result(result)
        return mine.result()


class Placer:
    """``threads`` threads that place files below ``root``; they call ``done`` when results wait."""

    def __init__(self, threads: int, root: str, done: Callable[[], None]) -> None:
        self._root = root
        self._done = done
        self._waiting: deque[Item] = deque()
        self._results: deque[Placed] = deque()
        self._ready = threading.Condition()
        self._closed = False
        self._threads = [
            threading.Thread(target=self._work, name=f"place-{number}", daemon=True)
            for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def place(self, key: Hashable, file: int, body: bytes, source: str, target: str) -> None:
        """Take over a file, open or as ``Item`` has it; its outcome is among the ``results`` once."""
        with self._ready:
            self._waiting.append(Item(key, file, source, target, self._root, body))
            self._ready.notify()

    def results(self) -> list[Placed]:
        """What was finished since the last call."""
        found = []
        with contextlib.suppress(IndexError):
            while True:
                found.append(self._results.popleft())
        return found

    def close(self) -> None:
        """Finish what waits, and end the threads."""
        with self._ready:
            self._closed = True
            self._ready.notify_all()
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while batch := self._take():
            try:
                results = place(batch)
            except Exception as error:  # a thread that died here would keep every file waiting
                log.exception("placing files failed unexpectedly", extra={"files": len(batch)})
                results = [Placed(item.key, BugError("unexpected", f"{error!r}")) for item in batch]
            self._results.extend(results)
            self._done()

    def _take(self) -> list[Item]:
        """The next batch; empty when closed and nothing waits any more."""
        with self._ready:
            while not self._waiting and not self._closed:
                self._ready.wait()
            size = min(len(self._waiting), LARGEST_BATCH)
            return [self._waiting.popleft() for _ in range(size)]

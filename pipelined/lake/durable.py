"""Makes commits to a table on the local disk survive a power loss: the table layer itself never fsyncs."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pipelined.errors import ConfigError

__all__ = ["LocalDisk", "local_path"]

#: Commits made durable when a table is first opened: its last writer may have died before it did so.
_FIRST_LOOK_BACK = 10


def local_path(url: str) -> Path | None:
    """The folder of a ``file:`` URL or plain path, None for a table elsewhere.

    Raises ConfigError for a path with ``%``, which the table layer would take for another folder.
    """
    parts = urlsplit(url)
    if parts.scheme not in {"", "file"}:
        return None
    path = Path(unquote(parts.path) if parts.scheme else url)
    if "%" in str(path):
        raise ConfigError(f"tables.url: {path} contains '%', which tables cannot have; choose another folder")
    return path.absolute()


class LocalDisk:
    """The files of one table on the local disk; remembers up to which version they are durable."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._log = root / "_delta_log"
        self._synced: int | None = None

    def sync(self, version: int) -> None:
        """Make every commit up to ``version`` durable. Raises OSError; then nothing counts as durable.

        Raises ConfigError for a data file that is not as long as its commit says: the commit counts as
        stored, and its rows are not there. A power loss between the two can do that.
        """
        if self._synced is None or version < self._synced:  # or the table was made anew
            for folder in self._root.parents:  # which may be as new as the table
                with contextlib.suppress(PermissionError):
                    _fsync(folder)
            self._synced = max(-1, version - _FIRST_LOOK_BACK)
        if version <= self._synced:
            return
        folders = {self._root, self._log}
        added: dict[str, tuple[int, int]] = {}
        for number in range(self._synced + 1, version + 1):
            commit = self._log / f"{number:020}.json"
            self._follow(number, commit, added)
            _fsync(commit)
            checkpoint = self._log / f"{number:020}.checkpoint.parquet"
            if checkpoint.exists():
                _fsync(checkpoint)
                _fsync(self._log / "_last_checkpoint")
        for name, (number, size) in added.items():
            file = self._root / unquote(name)
            found = _fsync(file)
            if found is not None and found != size:
                raise _damaged(file, found, number, size)
            folders.add(file.parent)
        for folder in folders:
            _fsync(folder)
        self._synced = version

    def sync_checkpoint(self, version: int) -> None:
        """Make the checkpoint of ``version`` durable. Raises OSError."""
        for file in self._log.glob(f"{version:020}.checkpoint*.parquet"):
            _fsync(file)
        _fsync(self._log / "_last_checkpoint")
        _fsync(self._log)

    def _follow(self, number: int, commit: Path, added: dict[str, tuple[int, int]]) -> None:
        """Note the files that a commit adds, with its number and their sizes, and forget what it removes."""
        try:
            lines = commit.read_bytes().splitlines()
        except FileNotFoundError:
            return  # expired from the log meanwhile: a checkpoint stands for it
        for line in lines:
            if line.startswith(b'{"add"'):
                add = json.loads(line)["add"]
                added[add["path"]] = number, add["size"]
            elif line.startswith(b'{"remove"'):
                added.pop(json.loads(line)["remove"]["path"], None)


def _damaged(file: Path, found: int, version: int, size: int) -> ConfigError:
    return ConfigError(
        f"{file} has {found} bytes, and version {version} of its table says {size}: a power loss, or a copy "
        f"that is not whole. Put the file back from a backup, or the table to version {version - 1} "
        "(DeltaTable.restore): what is missing is then read again. `pipelinectl tables check` tells what "
        "else is damaged"
    )


def _fsync(path: Path) -> int | None:
    """Make a file or folder durable; its size, None where it is not there."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None  # compacted and vacuumed meanwhile
    try:
        os.fsync(handle)
        return os.fstat(handle).st_size
    finally:
        os.close(handle)

"""Makes commits to a table on the local disk survive a power loss: the table layer itself never fsyncs."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
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
        """Make every commit up to ``version`` durable. Raises OSError; then nothing counts as durable."""
        if self._synced is None or version < self._synced:  # or the table was made anew
            for folder in self._root.parents:  # which may be as new as the table
                with contextlib.suppress(PermissionError):
                    _fsync(folder)
            self._synced = max(-1, version - _FIRST_LOOK_BACK)
        if version <= self._synced:
            return
        folders = {self._root, self._log}
        for number in range(self._synced + 1, version + 1):
            commit = self._log / f"{number:020}.json"
            for file in self._data_files(commit):
                _fsync(file)
                folders.add(file.parent)
            _fsync(commit)
            checkpoint = self._log / f"{number:020}.checkpoint.parquet"
            if checkpoint.exists():
                _fsync(checkpoint)
                _fsync(self._log / "_last_checkpoint")
        for folder in folders:
            _fsync(folder)
        self._synced = version

    def sync_checkpoint(self, version: int) -> None:
        """Make the checkpoint of ``version`` durable. Raises OSError."""
        for file in self._log.glob(f"{version:020}.checkpoint*.parquet"):
            _fsync(file)
        _fsync(self._log / "_last_checkpoint")
        _fsync(self._log)

    def _data_files(self, commit: Path) -> Iterator[Path]:
        try:
            lines = commit.read_bytes().splitlines()
        except FileNotFoundError:
            return  # expired from the log meanwhile: a checkpoint stands for it
        for line in lines:
            if line.startswith(b'{"add"'):
                yield self._root / unquote(json.loads(line)["add"]["path"])


def _fsync(path: Path) -> None:
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return  # compacted and vacuumed meanwhile
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

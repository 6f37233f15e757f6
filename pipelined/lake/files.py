"""The files of one table where they lie: its log, commit by commit, and what the folder holds."""

from __future__ import annotations

import datetime as dt
import os
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import obstore
import obstore.store as object_stores

from pipelined.lake.durable import local_path

__all__ = ["StoredFile", "TableFiles"]

#: What a writer killed in the middle of a file leaves on a local disk; no listing of the table layer has it.
_STAGING = re.compile(r"\.(parquet|json)#\d+$")


class StoredFile(NamedTuple):
    """A file by its path within the table, its size in bytes, and when it was written (epoch seconds)."""

    path: str
    size: int
    modified: float


class TableFiles:
    """Reads and lists the files of a table; ``options`` are those of :func:`lake.table.storage_options`."""

    def __init__(self, url: str, options: dict[str, str]) -> None:
        self._root = local_path(url)
        self._store: Any = None if self._root else _object_store(url, options)

    def commit(self, version: int) -> list[dict[str, Any]] | None:
        """The actions of a commit, each an object with one key; None where the log no longer has it."""
        name = f"_delta_log/{version:020}.json"
        try:
            if self._root is not None:
                data = (self._root / name).read_bytes()
            else:
                data = bytes(obstore.get(self._store, name).bytes())
        except FileNotFoundError:
            return None
        return [msgspec.json.decode(line) for line in data.splitlines() if line]

    def probe(self) -> None:
        """Write, read and delete a small file that is none of the table; raises the store's own errors."""
        name = f"_pipelined_probe_{uuid.uuid4().hex}"
        obstore.put(self._store, name, name.encode())
        try:
            obstore.get(self._store, name).bytes()
        finally:
            obstore.delete(self._store, name)

    def data(self) -> Iterator[StoredFile]:
        """All data files, whether a version of the table names them or not."""
        for file in self._all():
            if not file.path.startswith("_") and file.path.endswith(".parquet"):
                yield file

    def log(self) -> Iterator[StoredFile]:
        """The files of the log of a local table."""
        assert self._root is not None
        return _walk(self._root / "_delta_log", self._root)

    def staging(self) -> Iterator[StoredFile]:
        """Files that a killed writer began on a local disk and never finished; none elsewhere."""
        if self._root is not None:
            for file in self._all():
                if _STAGING.search(file.path):
                    yield file

    def remove(self, file: StoredFile) -> bool:
        """Remove a file of a local table for good; False where it is gone already."""
        assert self._root is not None
        try:
            (self._root / file.path).unlink()
        except FileNotFoundError:
            return False
        return True

    def _all(self) -> Iterator[StoredFile]:
        if self._root is not None:
            yield from _walk(self._root, self._root)
            return
        for page in obstore.list(self._store, chunk_size=1000):
            for meta in page:
                yield StoredFile(meta["path"], meta["size"], meta["last_modified"].timestamp())


def _walk(folder: Path, root: Path) -> Iterator[StoredFile]:
    try:
        entries = [*os.scandir(folder)]
    except FileNotFoundError:
        return  # a partition whose last file was vacuumed meanwhile
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(Path(entry.path), root)
            continue
        try:
            stat = entry.stat()
        except FileNotFoundError:
            continue
        yield StoredFile(os.path.relpath(entry.path, root), stat.st_size, stat.st_mtime)


def _object_store(url: str, options: dict[str, str]) -> Any:
    settings: dict[str, Any] = {
        "client_options": {
            "timeout": dt.timedelta(seconds=30),
            "connect_timeout": dt.timedelta(seconds=10),
            "allow_http": os.environ.get("AZURE_ALLOW_HTTP") == "true",
        },
        "retry_config": {"max_retries": 2, "retry_timeout": dt.timedelta(seconds=60)},
    }
    token = options.get("bearer_token")
    if token:
        settings["credential_provider"] = lambda: {"token": token, "expires_at": None}
    return object_stores.from_url(url, **settings)

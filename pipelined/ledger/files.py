"""The store, listed, and its files read to their end by a few threads."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import ObjectStore, from_url

from pipelined.auth import STORAGE_SCOPE, provider
from pipelined.config.tree import Config
from pipelined.errors import RecordError, UnavailableError
from pipelined.ledger.evidence import FoundFile
from pipelined.logs.masking import mask

__all__ = ["FileReader"]

_THREADS = 8
_CHUNK = 512


class FileReader:
    """The files below ``upload.url``. ``UnavailableError`` when the store cannot be listed or read."""

    def __init__(self, config: Config) -> None:
        parts = urlsplit(config.upload.url)
        self._url = config.upload.url if parts.scheme else f"file://{config.upload.url}"
        self._folder = Path(unquote(urlsplit(self._url).path)) if parts.scheme in {"", "file"} else None
        self._tokens = provider(
            config.upload.auth, STORAGE_SCOPE, section="upload.auth", host=parts.hostname or ""
        )

    def paths(self) -> Iterator[str]:
        """The path of each file in the store. What an upload has not finished yet is not one."""
        if self._folder and not self._folder.exists():
            return
        try:
            for some in obstore.list(self._store(), chunk_size=1000):
                yield from (str(found["path"]) for found in some if not self._unfinished(found["path"]))
        except (BaseError, OSError) as error:
            raise self._unavailable(error) from error

    def _unfinished(self, path: str) -> bool:
        # In a folder a file has a hidden name until it is whole; no part of a blob path begins with a dot.
        name = path.rpartition("/")[2]
        return self._folder is not None and name.startswith(".") and name.endswith(".part")

    def read(self, paths: Iterable[str]) -> Iterator[FoundFile]:
        """Each of these files, in their order."""
        left = iter(paths)
        store = None if self._folder else self._store()
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="ledger-files") as pool:
            while chunk := list(itertools.islice(left, _CHUNK)):
                yield from pool.map(lambda path: self._read(store, path), chunk)

    def _read(self, store: ObjectStore | None, path: str) -> FoundFile:
        try:
            return _read_remote(store, path) if store else _read_local(Path(f"{self._folder}/{path}"), path)
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return FoundFile(path, 0, None)
        except (BaseError, OSError) as error:
            raise self._unavailable(error) from error

    def _store(self) -> ObjectStore:
        options: dict[str, Any] = {}
        if not self._folder and (token := self._token()):
            options["config"] = {"token": token}
        return from_url(self._url, **options)

    def _token(self) -> str:
        try:
            return self._tokens.token()
        except RecordError as error:
            raise self._unavailable(error) from error

    def _unavailable(self, error: Exception) -> UnavailableError:
        return UnavailableError(f"the store {self._url} cannot be read: {mask(str(error))}")


def _read_local(file: Path, path: str) -> FoundFile:
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
        return FoundFile(path, opened.tell(), digest)


def _read_remote(store: ObjectStore, path: str) -> FoundFile:
    digest, size = hashlib.sha256(), 0
    for chunk in obstore.get(store, path).stream(min_chunk_size=1 << 20):
        digest.update(chunk)
        size += len(chunk)
    return FoundFile(path, size, digest.hexdigest())

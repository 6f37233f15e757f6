"""Where files end up: a local folder of ours, or any object store obstore speaks to.

``put`` is atomic and idempotent: a reader never sees a part of a file, and putting the same file twice, by
whoever and however interrupted, leaves one file. When it returns, the file is durable.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import fcntl
import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Protocol
from urllib.parse import unquote, urlsplit

import obstore
import obstore.store as object_stores
from obstore import exceptions

from pipelined.auth import STORAGE_SCOPE, TokenProvider, provider
from pipelined.config.auth import Auth
from pipelined.errors import (
    AuthError,
    ConfigError,
    DependencyError,
    PermanentError,
    RecordError,
    TransientError,
)
from pipelined.logs.masking import mask
from pipelined.storage.disk import disk_error, probe, sync_folder
from pipelined.storage.durable import Group, Item

__all__ = ["PART_BYTES", "LocalStore", "ObjectStore", "Store", "open_store"]

#: Files up to this size go in one request; larger ones in parts of it, two at once: 26 MB of memory.
PART_BYTES = 8 * 1024 * 1024
_PARTS_AT_ONCE = 2
_CONNECT_TIMEOUT = dt.timedelta(seconds=10)
_UNAUTHENTICATED = 401
_SEGMENT_BYTES = 255
_PATH_LIMIT = 1024  # what Azure takes
#: Plain http, for stores of a test or of a closed network, is asked for by the store's own variable.
_ALLOW_HTTP = ("AZURE_ALLOW_HTTP", "AWS_ALLOW_HTTP")
_BAD_SEGMENT = re.compile(r"[\x00-\x1f\x7f]")
_STATUS = re.compile(r"status code: (\d{3})")


class Store(Protocol):
    """A place for files."""

    def put(self, path: str, source: Path, size: int, sha256: str) -> None:
        """Store the file ``source``, of ``size`` bytes, under ``path``, parts separated by slashes.

        PermanentError: the path cannot be one. AuthError: we were refused. DependencyError: the store or
        its disk does not do its part. TransientError: this very file was refused. FileNotFoundError:
        there is no ``source``.
        """

    def holds(self, path: str, size: int, sha256: str) -> bool:
        """Whether this very file is stored under ``path``, as durable as one that was just put.

        A store that keeps no metadata cannot tell, and does not. Raises what ``put`` raises of the store.
        """


def open_store(url: str, *, timeout_s: float, auth: Auth | None = None) -> LocalStore | ObjectStore:
    """The store of a URL. ``auth`` is how to log in to Azure or OneLake.

    Without one, or with its method none, credentials are what obstore finds in the environment. Raises
    ConfigError for what is no store. Make it in the process that uses it.
    """
    parts = urlsplit(url)
    if parts.scheme == "file":
        return LocalStore(Path(unquote(parts.path)))
    tokens = None
    if auth and auth.method != "none":
        tokens = provider(auth, STORAGE_SCOPE, section="upload.auth", host=parts.hostname or "")
    return ObjectStore(_object_store(url, timeout_s, tokens), tokens)


class LocalStore:
    """A folder of this machine, every file and name synced."""

    def __init__(self, root: Path) -> None:
        if not root.is_absolute():
            raise ConfigError(
                f"a file:// store needs an absolute folder, file:///folder; it has {str(root)!r}"
            )
        self.root = root
        self._group = Group()
        self._anchored = False

    def put(self, path: str, source: Path, size: int, sha256: str) -> None:
        """See :class:`Store`. A file of that name is replaced."""
        del size, sha256  # nothing to tell a folder
        target = self.root.joinpath(*_segments(path))
        if target.is_dir():
            raise PermanentError("store_path", f"{path!r} is a folder of the store already")
        # One name for all attempts at one file, so that an interrupted one leaves nothing behind for good.
        digest = hashlib.blake2b(target.name.encode(), digest_size=12).hexdigest()
        temporary = target.parent / f".{digest}.part"
        with source.open("rb") as reader:
            try:
                file = _exclusive(temporary)
                try:
                    with open(file, "wb", closefd=False) as writer:
                        shutil.copyfileobj(reader, writer, PART_BYTES)
                except OSError:
                    os.close(file)
                    raise
            except (FileExistsError, NotADirectoryError) as error:
                raise PermanentError("store_path", f"{path!r} leads through a stored file") from error
            except OSError as error:
                raise disk_error(error, target) from error
        placed = self._group.place(Item(path, file, str(temporary), str(target), str(self.root)))
        if placed.error is not None:
            raise placed.error
        self._anchor(target)

    def holds(self, path: str, size: int, sha256: str) -> bool:
        """See :class:`Store`. The file is read, in parts, and synced."""
        segments = _segments(path)
        target = self.root.joinpath(*segments)
        try:
            with target.open("rb") as file:
                if os.fstat(file.fileno()).st_size != size:
                    return False
                if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                    return False
                # Whoever put it there may have died between its renaming and its syncing.
                os.fsync(file.fileno())
            for folder in target.parents[: len(segments)]:
                sync_folder(folder)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return False
        except OSError as error:
            raise disk_error(error, target) from error
        self._anchor(target)
        return True

    def probe(self) -> None:
        """Write and read a file that never has a name. Raises what ``put`` raises of the disk."""
        probe(self.root)

    def _anchor(self, target: Path) -> None:
        """Once, make the root's own name durable: it may be as new as its first file."""
        if self._anchored:
            return
        try:
            for folder in self.root.parents:
                with contextlib.suppress(PermissionError):
                    sync_folder(folder)
        except OSError as error:
            raise disk_error(error, target) from error
        self._anchored = True


class ObjectStore:
    """An object store: Azure, OneLake, S3, GCS, HTTP or memory."""

    def __init__(self, store: Any, tokens: TokenProvider | None = None) -> None:
        """``tokens`` is where ``store`` has its tokens from."""
        self._store = store
        self._tokens = tokens
        self._plain = False  # it knows neither metadata nor conditional requests

    def put(self, path: str, source: Path, size: int, sha256: str) -> None:
        """See :class:`Store`. A file of that name, size and hash is left as it is."""
        path = "/".join(_segments(path))
        if size > PART_BYTES:
            with self._requests(path):
                same = self._is_there(path, size, sha256)
            if not same:
                if not source.exists():
                    raise FileNotFoundError(source)
                self._write(path, source, sha256)
            return
        data = source.read_bytes()
        try:
            self._write(path, data, sha256, mode="create")
        except exceptions.AlreadyExistsError:
            with self._requests(path):
                same = self._is_there(path, size, sha256)
            if not same:
                self._write(path, data, sha256)

    def holds(self, path: str, size: int, sha256: str) -> bool:
        """See :class:`Store`."""
        path = "/".join(_segments(path))
        with self._requests(path):
            return self._is_there(path, size, sha256, without_metadata=False)

    def probe(self) -> None:
        """Write, read and delete a small file. Raises what ``put`` raises of the store."""
        name = f"_pipelined_probe_{uuid.uuid4().hex}"
        with self._requests(name):
            obstore.put(self._store, name, name.encode())
            try:
                obstore.get(self._store, name).bytes()
            finally:
                obstore.delete(self._store, name)

    @contextlib.contextmanager
    def _requests(self, path: str) -> Iterator[None]:
        """Around requests for ``path``: the login comes first, and a token that was refused is given back.

        A login that fails says itself who must act; of an error inside a request only its text is left.
        """
        token = self._tokens.token() if self._tokens else ""
        try:
            with _errors(path):
                yield
        except AuthError as error:
            if self._tokens and error.http_status == _UNAUTHENTICATED:
                self._tokens.refresh(token)
            raise

    def _write(
        self, path: str, file: Path | bytes, sha256: str, mode: Literal["create"] | None = None
    ) -> None:
        options: dict[str, Any] = {"chunk_size": PART_BYTES, "max_concurrency": _PARTS_AT_ONCE}
        with self._requests(path):
            if not self._plain:
                try:
                    obstore.put(self._store, path, file, attributes={"sha256": sha256}, mode=mode, **options)
                except (NotImplementedError, exceptions.NotSupportedError):
                    self._plain = True
                else:
                    return
            obstore.put(self._store, path, file, **options)

    def _is_there(self, path: str, size: int, sha256: str, *, without_metadata: bool = True) -> bool:
        """Whether the very file is stored already.

        Where the store keeps no metadata the size tells, or, not ``without_metadata``, nothing does.
        """
        try:
            found = obstore.get(self._store, path, options={"head": True})
        except FileNotFoundError:
            return False
        there = found.attributes.get("sha256", sha256 if without_metadata else "")
        return found.meta["size"] == size and there == sha256


def _segments(path: str) -> list[str]:
    segments = path.split("/")
    bad = any(
        part in ("", ".", "..") or len(part.encode()) > _SEGMENT_BYTES or _BAD_SEGMENT.search(part)
        for part in segments
    )
    if bad or len(path) > _PATH_LIMIT:
        raise PermanentError("store_path", f"{path[:200]!r} cannot be the path of a stored file")
    return segments


def _exclusive(path: Path) -> int:
    """Open an empty file for writing that nobody else is writing, in a folder made where it is missing."""
    while True:
        try:
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o640)
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True)
            continue
        fcntl.flock(file, fcntl.LOCK_EX)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file), path.stat()):
                os.ftruncate(file, 0)
                return file
        os.close(file)  # whoever held the lock has finished it: it bears its final name now


@contextlib.contextmanager
def _errors(path: str) -> Iterator[None]:
    """Map what obstore raises to our errors; AlreadyExistsError and what says "not supported" pass."""
    try:
        yield
    except (exceptions.AlreadyExistsError, exceptions.NotSupportedError, RecordError):
        raise
    except exceptions.UnauthenticatedError as error:
        raise AuthError(
            "store_auth",
            f"the store refused our credentials: check upload.auth ({_brief(error)})",
            http_status=_UNAUTHENTICATED,
        ) from error
    except exceptions.PermissionDeniedError as error:
        raise AuthError(
            "store_forbidden",
            f"the store knows us, and we may not write there: give the identity of upload.auth the rights "
            f"({_brief(error)})",
            http_status=403,
        ) from error
    except FileNotFoundError as error:
        raise DependencyError(
            "store_not_found", f"the store's container does not exist: check upload.url ({_brief(error)})"
        ) from error
    except (exceptions.InvalidPathError, ValueError) as error:
        raise PermanentError("store_path", f"{path[:200]!r} cannot be the path of a stored file") from error
    except exceptions.BaseError as error:
        raise _refused_or_down(error) from error


def _refused_or_down(error: Exception) -> RecordError:
    """A request the store calls wrong concerns this file; everything else concerns the store."""
    text = _brief(error)
    status = _STATUS.search(str(error))
    if status and status[1].startswith("4") and status[1] not in ("408", "409", "429"):
        return TransientError(f"store_http_{status[1]}", f"the store refused the file ({text})")
    if "os error 28" in text:
        return DependencyError("disk_full", f"the store's disk is full ({text})")
    return DependencyError("store_down", f"the store does not answer as it should ({text})")


def _brief(error: Exception) -> str:
    """The first line of an error of obstore: the rest is a dump of its inside. Without the query of a URL,
    and without what a store repeats of our request.
    """
    return mask(re.sub(r"\?\S*", "", str(error).partition("\n")[0]))[:300].strip()


def _object_store(url: str, timeout_s: float, tokens: TokenProvider | None) -> Any:
    timeout = dt.timedelta(seconds=timeout_s)
    options: dict[str, Any] = {}
    if tokens:
        # As good as over, so that each request asks: one that was renewed, or refused, is not used again.
        options["credential_provider"] = lambda: {
            "token": tokens.token(),
            "expires_at": dt.datetime.now(dt.UTC),
        }
    if not url.startswith("memory:"):
        options["client_options"] = {
            "timeout": timeout,
            "connect_timeout": min(timeout, _CONNECT_TIMEOUT),
        }
        # Given options hide what obstore itself would read from these variables.
        if url.startswith("http:") or "true" in map(os.environ.get, _ALLOW_HTTP):
            options["client_options"]["allow_http"] = True
        options["retry_config"] = {"max_retries": 2, "retry_timeout": timeout}
    try:
        return object_stores.from_url(url, **options)
    except (exceptions.BaseError, ValueError, TypeError) as error:
        raise ConfigError(f"upload.url = {url!r} is no store: {_brief(error)}") from error

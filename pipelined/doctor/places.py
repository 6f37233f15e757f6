"""Where things are written to: the tables, the store for files, the folders of this host."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

from pipelined.config import Config
from pipelined.doctor.finding import Finding, Outcome, failed, fine, warned
from pipelined.errors import DependencyError

if TYPE_CHECKING:
    from pipelined.lake.table import TableSource

__all__ = ["folders", "store", "tables"]

_STORE_S: Final = 8.0
#: A disk with less than this share free is worth a look, and with less than that a failure.
_SCARCE, _FULL = 0.10, 0.01
_GB: Final = 1e9


def folders(config: Config) -> Iterator[Finding]:
    """The folders of state (with the log of a daemon in the background), cache and control socket."""
    if finding := _wrong_user(config):
        yield finding
    kept = {"state_dir": config.state_dir, "cache_dir": config.cache_dir, "runtime_dir": config.runtime_dir}
    for key, folder in kept.items():
        yield _folder(key, Path(folder))


def _wrong_user(config: Config) -> Finding | None:
    """Root may write everywhere, which says nothing of the daemon's user."""
    try:
        owner = Path(config.state_dir).stat().st_uid
    except OSError:
        return None
    if os.geteuid() == owner or os.geteuid() != 0:
        return None
    text = f"this runs as root, and the state folder belongs to user id {owner}: rights are not judged"
    return warned(text, f"run it as that user: `sudo -u '#{owner}' pipelinectl doctor`")


def _folder(key: str, folder: Path) -> Finding:
    from pipelined.storage.disk import probe

    try:
        probe(folder)
        usage = shutil.disk_usage(next(path for path in (folder, *folder.parents) if path.exists()))
    except (OSError, DependencyError) as error:
        return failed(f"{key}: {error}", f"make {folder} writable for this user, or set {key} to one that is")
    share = usage.free / usage.total if usage.total else 1.0
    missing = "" if folder.exists() else ", not there yet"
    text = f"{key}: {folder}{missing}, {usage.free / _GB:.1f} GB free ({share:.0%})"
    fix = f"free space there, or set {key} to a folder on a larger disk"
    if share < _FULL:
        return failed(text, fix)
    return warned(text, fix) if share < _SCARCE else fine(text)


def store(config: Config) -> Iterator[Finding]:
    """A small file is written to the store, read and deleted."""
    from pipelined.storage.stores import open_store

    upload = config.upload
    if folder := _local(upload.url):
        yield _folder("upload.url", folder)
        return
    open_store(upload.url, timeout_s=min(_STORE_S, upload.timeout_s), auth=upload.auth).probe()
    yield fine(f"a file was written to {upload.url}, read and deleted")


def tables(config: Config) -> Iterator[Finding]:
    """Each table: that its place can be written to, that it opens, and that its columns fit."""
    from pipelined.lake.faults import classified
    from pipelined.lake.schemas import TABLES
    from pipelined.lake.tables import source

    root = _local(config.tables.url)
    if root:
        yield _folder("tables.url", root)
    for spec in TABLES:
        table, name = source(config, spec), spec.name(config.domain)
        with classified(table.url):
            if root is None and (finding := _object_store(table)):
                # Container and rights are those of the other tables, too.
                yield finding
                return
            if not table.exists():
                yield fine(f"{name}: not there yet; the first start makes it")
                continue
            opened = table.existing()
            if problems := table.problems(opened):
                for problem in problems:
                    yield failed(f"{name}: {problem}", "alter the table, or move it away: it is made anew")
                continue
            if (
                root
                and (finding := _folder("tables.url", root / name / "_delta_log")).outcome is Outcome.FAIL
            ):
                yield finding
                continue
        yield fine(f"{name}: version {opened.version()}, its columns fit, and it can be written to")


def _object_store(table: TableSource) -> Finding | None:
    """What keeps us from writing to a table's place in an object store, there or not; None for nothing."""
    from obstore.exceptions import PermissionDeniedError

    try:
        table.files().probe()
    except FileNotFoundError:
        text = f"there is no container for {table.url}"
        return failed(text, "make the container, or set tables.url to one that is there")
    except PermissionDeniedError:
        text = f"the store knows us, and we may not write to {table.url}, read and delete there"
        return failed(text, "give the identity of tables.auth these rights")
    return None


def _local(url: str) -> Path | None:
    parts = urlsplit(url)
    return Path(unquote(parts.path)) if parts.scheme == "file" else None

"""What the local disk may say, and the system calls Python has no name for."""

from __future__ import annotations

import ctypes
import errno
import os
import tempfile
from pathlib import Path

from pipelined.errors import DependencyError

__all__ = ["create", "disk_error", "probe", "sync_file_system", "sync_folder", "write_all"]

_FULL = {errno.ENOSPC, errno.EDQUOT}
_libc = ctypes.CDLL(None, use_errno=True)


def disk_error(error: OSError, where: Path | str) -> DependencyError:
    """The error of a stage whose local disk does not do its part: full, or gone, or in error."""
    if error.errno in _FULL:
        return DependencyError(
            "disk_full", f"no space left for {where}: free some, the work goes on by itself ({error})"
        )
    if error.errno == errno.ENOENT:
        return DependencyError(
            "disk_gone", f"{where}, or the folder it is written in, was removed meanwhile ({error})"
        )
    return DependencyError(
        "disk_error", f"cannot use {where}: check the disk and the folder's owner and mode ({error})"
    )


def create(path: str) -> int:
    """A new, empty file, open for writing; one that is there is emptied. Raises OSError."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)


def write_all(descriptor: int, data: bytes) -> None:
    """Write everything: a disk that fills up takes a part first. Raises OSError."""
    written = os.write(descriptor, data)
    while written < len(data):
        written += os.write(descriptor, data[written:])


def probe(folder: Path) -> None:
    """Write a file that has no name in the folder, or in the one that it will be made in, and read it.

    Raises DependencyError where that cannot be done.
    """
    try:
        there = next(path for path in (folder, *folder.parents) if path.exists())
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(b"probe")
            file.flush()
            os.fsync(file.fileno())
            file.seek(0)
            file.read()
    except OSError as error:
        raise disk_error(error, folder) from error


def sync_folder(folder: Path | str) -> None:
    """Make the entries of a folder durable. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file_system(descriptor: int) -> None:
    """Make everything durable on the file system the open file lies on. Raises OSError."""
    if _libc.syncfs(descriptor) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))

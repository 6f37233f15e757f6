"""The memory file that the counters stand in: a new one, or that of the daemon before."""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
from collections.abc import Callable, Sequence

__all__ = ["Memory"]

_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
#: Against writing, now or from the next mapping on; the second is missing in ``fcntl``.
_NEVER = fcntl.F_SEAL_WRITE | 0x0010


class Memory:
    """``size`` bytes that are shared with every child, sealed against resizing, so that no child can take
    the ground from under the others. They begin with the words of ``head``; the rest of a new one is zero.

    ``before`` is the descriptor of the memory of a daemon before this one, which is gone on with where it is
    of this size, sealed, and begins with the same words; to anything else nothing is written. ``keep`` is
    called with the descriptor of a new one. Both descriptors are closed.
    """

    def __init__(
        self,
        size: int,
        head: Sequence[int],
        before: int | None = None,
        keep: Callable[[int], None] | None = None,
    ) -> None:
        #: Why that of the daemon before is not gone on with; "" where it is, or where there was none.
        self.unfit = "" if before is None else _unfit(before, size, head)
        self.goes_on = before is not None and not self.unfit
        fd = before if before is not None and self.goes_on else _made(size, head)
        try:
            self.view = memoryview(mmap.mmap(fd, size))
            if keep is not None and not self.goes_on:
                keep(fd)
        finally:
            os.close(fd)
            if before is not None and before != fd:
                os.close(before)


def _made(size: int, head: Sequence[int]) -> int:
    fd = os.memfd_create("pipelined.stats", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, size)
        os.pwrite(fd, _bytes(head), 0)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _unfit(fd: int, size: int, head: Sequence[int]) -> str:
    try:
        seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
        writable = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDWR
        found = os.fstat(fd).st_size
        words = os.pread(fd, 8 * len(head), 0)
    except OSError as error:
        return f"it is no memory file ({error.strerror})"
    if seals & (_SEALS | _NEVER) != _SEALS or not writable:
        return "it is not sealed as ours are"
    if found != size:
        return f"it has {found} bytes, and {size} are needed for the workers that there may be now"
    if words != _bytes(head):
        return "it is of other metrics or other workers"
    return ""


def _bytes(words: Sequence[int]) -> bytes:
    return struct.pack(f"={len(words)}Q", *words)

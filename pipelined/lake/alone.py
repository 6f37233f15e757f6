"""One compaction at a time: two of the same files at once would both be committed, and double their rows.

The table layer lets them: it looks for changes of the data by others, and a compaction is none. No
transaction of ours in the commit stops the second one either (both tried with deltalake 1.6.6).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["alone"]

_LOCK = "_compaction.lock"


@contextlib.contextmanager
def alone(root: Path) -> Iterator[bool]:
    """Whether nobody else compacts the table in that folder, as long as this lasts.

    The kernel holds the lock for a process that is stopped, and lets go of it for one that is dead.
    """
    file = os.open(root / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(file)

"""A host's clock, moved for all its processes at once and for nobody else: clock.c, preloaded into them.

A time namespace would move monotonic clocks only, and the machine's own clock is everybody's.
"""

from __future__ import annotations

import functools
import mmap
import subprocess
from pathlib import Path

__all__ = ["Clock"]

_SOURCE = Path(__file__).with_name("clock.c")


class Clock:
    """The clock of processes started with ``environment``; ``missing`` says why it cannot be moved, or ""."""

    def __init__(self, file: Path) -> None:
        library, self.missing = _library(file.parent.parent)
        self.environment = {} if self.missing else {"LD_PRELOAD": str(library), "CHAOS_CLOCK": str(file)}
        file.write_bytes(bytes(mmap.PAGESIZE))
        with file.open("r+b") as opened:
            self._offset = memoryview(mmap.mmap(opened.fileno(), mmap.PAGESIZE)).cast("d")

    def move(self, seconds: float) -> None:
        """Let it be so much ahead of the true time."""
        self._offset[0] = seconds


@functools.cache
def _library(folder: Path) -> tuple[Path, str]:
    """The library in ``folder``, built by the machine's C compiler, and why there is none, or ""."""
    made = folder / "clock.so"
    try:
        done = subprocess.run(
            ["cc", "-O2", "-shared", "-fPIC", "-o", made, _SOURCE, "-ldl", "-lm"],
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        return made, "there is no C compiler (cc)"
    return made, done.stderr.strip() if done.returncode else ""

"""Disks of a day's own, so that they can be full: small file systems in memory, mounted over its folders."""

from __future__ import annotations

import contextlib
import subprocess
import time
from pathlib import Path

__all__ = ["Disk"]

_FREE = 16 << 10
_PATIENCE_S = 5.0


class Disk:
    """A file system of ``size`` bytes at ``place``; where none can be mounted, the plain folder it is.

    ``missing`` says why it could not be mounted, "" where it is.
    """

    def __init__(self, place: Path, size: int) -> None:
        self.place = place
        self._size = size
        place.mkdir(parents=True, exist_ok=True)
        self.missing = self._mount(f"size={size}")

    def fill(self) -> None:
        """Leave no more than some kB free, by making the disk smaller. OSError where it cannot be done."""
        deadline = time.monotonic() + _PATIENCE_S
        while error := self._mount(f"remount,size={self._used() + _FREE}"):
            # Something was written between the look and the call.
            if time.monotonic() > deadline:
                raise OSError(f"{self.place} could not be filled: {error}")

    def free(self) -> None:
        """Give it its whole size back."""
        if not self.missing and (error := self._mount(f"remount,size={self._size}")):
            raise OSError(f"{self.place} could not be freed: {error}")

    def take_down(self, keep: Path | None = None) -> None:
        """Unmount it; what is on it is first copied to ``keep``, where that is given."""
        if self.missing:
            return
        if keep is not None:
            subprocess.run(["cp", "-a", f"{self.place}/.", keep], check=False)
        with contextlib.suppress(subprocess.CalledProcessError):
            subprocess.run(["umount", "--lazy", self.place], check=True, capture_output=True)
        if keep is not None:
            self.place.rmdir()
            keep.rename(self.place)

    def _used(self) -> int:
        shown = subprocess.run(
            ["df", "--block-size=1", "--output=used", self.place], capture_output=True, text=True, check=True
        )
        return int(shown.stdout.split()[-1])

    def _mount(self, options: str) -> str:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "none", self.place],
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stderr.strip() or (f"mount ended with {done.returncode}" if done.returncode else "")

"""A cable between a host of its own network and this machine's ports, which can be cut.

The host runs in a network namespace, where 127.0.0.1 is its own. What connects to one of the ports there
is carried over a Unix socket, which knows no namespaces, to the same port here. Cut, it takes what it is
given and brings nothing over, as a broken line does: no reset, no refusal, no answer.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import realparts
from waiting import until

SCRIPT = Path(__file__).with_name("cable_end.py")


class Cable:
    """A context manager; ``enter`` before a command runs it at the far end. Needs root."""

    def __init__(self, folder: Path, ports: Sequence[int]) -> None:
        missing = [tool for tool in ("unshare", "nsenter", "ip") if shutil.which(tool) is None]
        why = f"needs root and {missing or 'unshare, nsenter, ip'}" if missing or os.geteuid() else None
        realparts.require("a network of its own", why)
        self._sockets = {port: folder / f"cable-{port}.sock" for port in ports}
        self._ends: list[subprocess.Popen[bytes]] = []
        self.enter: list[str] = []

    def __enter__(self) -> Self:
        names = [f"{port}={path}" for port, path in self._sockets.items()]
        script = [sys.executable, str(SCRIPT)]
        near = subprocess.Popen([*script, "near", *names])
        far = subprocess.Popen(["unshare", "--net", *script, "far", *names])
        self._ends = [near, far]
        self.enter = ["nsenter", f"--net=/proc/{far.pid}/ns/net"]
        until(lambda: all(path.with_suffix(".up").exists() for path in self._sockets.values()))
        return self

    def cut(self) -> None:
        """Nothing comes over any more."""
        self._ends[1].send_signal(signal.SIGSTOP)

    def mend(self) -> None:
        """It works again, and what was on its way arrives."""
        self._ends[1].send_signal(signal.SIGCONT)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for end in self._ends:
            end.kill()
            end.wait()

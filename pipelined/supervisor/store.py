"""What systemd keeps for the next daemon: descriptors, by their names (FDSTORE of sd_notify(3))."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import MutableMapping

__all__ = ["COUNTERS", "ENDPOINT", "Order", "Store"]

#: A message for systemd, and the descriptor that goes with it, or -1. Who has sent it closes that.
Order = tuple[str, int]

#: The names of what is kept.
COUNTERS = "counters"
ENDPOINT = "endpoint"

_VARIABLES = ("LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDS", "LISTEN_FDNAMES", "FDSTORE")
_FIRST_FD = 3


class Store:
    """What systemd kept of the daemon before, to be taken once, and what it shall keep of this one.

    The variables that tell of it are taken out of ``environ``, so that no child believes itself meant. What
    nobody takes over is removed there too, since room is limited. ``orders`` is for ``Notify`` to send.
    Where there is no systemd nothing was kept and nothing is.
    """

    def __init__(self, environ: MutableMapping[str, str] = os.environ) -> None:
        told = {name: environ.pop(name, "") for name in _VARIABLES}
        #: Whether systemd is there to keep anything.
        self.there = bool(environ.get("NOTIFY_SOCKET"))
        self.orders: deque[Order] = deque()
        self._kept: dict[str, list[int]] = {}
        if told["LISTEN_PID"] == str(os.getpid()) and told["LISTEN_FDS"].isdigit():
            names = told["LISTEN_FDNAMES"].split(":")
            for index in range(int(told["LISTEN_FDS"])):
                name = names[index] if index < len(names) else ""
                try:
                    os.set_inheritable(_FIRST_FD + index, False)
                except OSError:
                    break  # there are fewer than was said
                self._kept.setdefault(name, []).append(_FIRST_FD + index)
        for name, fds in list(self._kept.items()):
            if name not in {COUNTERS, ENDPOINT} or len(fds) > 1 or not self.there:
                self.drop(name)  # not ours, or nobody can tell which is the right one

    def take(self, name: str) -> int | None:
        """The descriptor that was kept under this name, for the caller to close; None where there is none."""
        fds = self._kept.get(name)
        return fds.pop() if fds else None

    def keep(self, name: str, fd: int) -> None:
        """Have systemd keep the open file of ``fd``, instead of what it has under this name."""
        if self.there:
            self.drop(name)
            self._kept[name] = []
            # Not looked at by systemd: a listener that is shut for a while would be thrown out.
            self.orders.append((f"FDSTORE=1\nFDNAME={name}\nFDPOLL=0", os.dup(fd)))

    def drop(self, name: str) -> None:
        """Have systemd keep nothing under this name any longer."""
        for fd in (fds := self._kept.pop(name, None)) or ():
            os.close(fd)
        if fds is not None and name and self.there:
            self.orders.append((f"FDSTOREREMOVE=1\nFDNAME={name}", -1))

"""What ps, top and ``systemctl status`` call a process: its command line, over which it may write.

The arguments lie in the memory of the process itself, from ``arg_start`` to ``arg_end`` of proc(5); a forked
child has those of its parent, which tell nobody which of the workers it is.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

__all__ = ["entitle"]

#: Of the fields of /proc/self/stat that follow the name of the program.
_ARG_START, _ARG_END = 45, 46


def _arguments() -> tuple[int, int]:
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        start, end = int(fields[_ARG_START]), int(fields[_ARG_END])
    except (OSError, IndexError, ValueError):
        return 0, 0
    return start, end - start


#: Found before the fork: they lie where they lay in every child.
_START, _ROOM = _arguments()


def entitle(title: str) -> None:
    """Call this process ``title`` from now on, as much of it as its arguments have room for; not where these
    cannot be found.
    """
    if _START and _ROOM > 1:
        text = title.encode()[: _ROOM - 1]
        ctypes.memmove(_START, text.ljust(_ROOM, b"\0"), _ROOM)

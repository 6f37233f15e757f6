"""The protocol of the control socket, for both of its ends: one JSON object a line, versioned.

A request is ``{"v": 1, "cmd": "…", …}``, a reply ``{"v": 1, "ok": true, …}`` or
``{"v": 1, "ok": false, "error": "…"}``. The commands:

- ``status``: the reply has ``status``, the document of ``stats.status``;
- ``events``: the reply has ``events``, the last ones of the daemon; with ``number`` only those after it;
- ``config``: the reply has ``values``, by the paths of the keys; secrets are their references;
- ``stop``, of everything: with ``"leave": true`` where this host goes out of service;
- ``stop``, ``start``, ``pause``, ``resume`` with ``"type": "download"``: done, or begun, with the reply;
- ``log-level`` with ``"level": "debug"``, and a type or none for all: the reply has ``levels``, by type;
- ``reload``, and with a type ``restart`` and ``scale`` (with ``"processes": 4``): the reply has
  ``operation``, whose ``number`` the command ``operation`` asks for until its ``state`` is no more
  ``checking`` or ``applying`` but ``done``, ``refused``, ``failed`` or ``abandoned``.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipelined.errors import UnavailableError

__all__ = [
    "FIELDS",
    "MOST_REQUEST",
    "VERSION",
    "OtherVersionError",
    "address",
    "ask",
    "in_words",
    "pack",
    "socket_path",
    "unpack",
]

VERSION = 1
#: What a request may have. Any other field is refused: mistyped, it would mean something else without it.
FIELDS = frozenset({"v", "cmd", "type", "leave", "processes", "number", "level"})
#: The longest request, in bytes.
MOST_REQUEST = 4096
_MOST_REPLY = 16 * 1024 * 1024
_MOST_PATH = 107


class OtherVersionError(ValueError):
    """The other end speaks another version of the protocol."""


def socket_path(runtime_dir: str) -> Path:
    """Where the daemon with this runtime folder listens."""
    return Path(runtime_dir) / "control.sock"


@contextlib.contextmanager
def address(path: Path) -> Iterator[str]:
    """What to bind or to connect to for ``path``, also where that is too long for a socket's address."""
    if len(os.fsencode(path)) <= _MOST_PATH:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def pack(message: dict[str, Any]) -> bytes:
    """A message as one line, its version added."""
    return json.dumps({"v": VERSION, **message}, separators=(",", ":")).encode() + b"\n"


def in_words(request: dict[str, Any]) -> str:
    """A request as an operator would type it, cut where it is odd."""
    words = [request.get("cmd"), request.get("type"), request.get("processes")]
    words += ["--leave"] if request.get("leave") is True else []
    return " ".join(str(word)[:40] for word in words if word is not None)


def unpack(line: bytes) -> dict[str, Any]:
    """The message in a line; raises ValueError with what is wrong with it."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        raise ValueError("that is not JSON") from None
    if not isinstance(message, dict):
        raise ValueError("that is not a JSON object")
    if message.get("v") != VERSION:
        raise OtherVersionError(
            f"this end speaks version {VERSION} of the protocol, and was spoken to in "
            f"{str(message.get('v', 'none'))[:20]}; use the pipelinectl that came with it"
        )
    return message


def ask(runtime_dir: str, request: dict[str, Any], timeout: float = 5.0) -> dict[str, Any]:
    """Send one request to the daemon with this runtime folder and return its reply.

    ``timeout`` is in seconds, for each of connecting, sending and receiving. Raises UnavailableError where
    no daemon answers, or not in time, or not in this protocol.
    """
    path = socket_path(runtime_dir)
    try:
        with address(path) as where, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout)
            connection.connect(where)
            connection.sendall(pack(request))
            with connection.makefile("rb") as stream:
                return unpack(stream.readline(_MOST_REPLY))
    except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError) as error:
        raise UnavailableError(
            f"no daemon listens on {path}; start one with `pipelinectl start`, or set "
            f"runtime_dir to its folder"
        ) from error
    except PermissionError as error:
        raise UnavailableError(
            f"{path} may not be opened: {error.strerror}; run this as the daemon's user, one of "
            f"its group, or root"
        ) from error
    except (OSError, ValueError) as error:
        raise UnavailableError(
            f"the daemon on {path} gave no answer that can be understood: {error}; its log says why"
        ) from error

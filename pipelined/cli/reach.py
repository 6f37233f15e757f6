"""Asking the running daemon, and saying in words why it does not answer."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pipelined.config import Config
from pipelined.errors import UnavailableError, UsageError
from pipelined.supervisor.pidfile import holder
from pipelined.supervisor.protocol import OtherVersionError, ask, socket_path

__all__ = ["request"]

#: For an answer. A daemon that is well answers within milliseconds, on a machine that is not after longer.
_PATIENCE_S = 5.0


def request(config: Config, message: dict[str, Any], timeout: float = _PATIENCE_S) -> dict[str, Any]:
    """Ask the daemon of this configuration and return its reply.

    Raises UsageError where it refuses, and UnavailableError where it does not answer within ``timeout``
    seconds or cannot be understood: it says which of these, and what to do.
    """
    try:
        reply = ask(config.runtime_dir, message, timeout)
    except UnavailableError as error:
        raise UnavailableError(_why(config, error, timeout)) from error
    if not reply.get("ok"):
        raise UsageError(f"the daemon refused: {reply.get('error', 'it did not say why')}")
    return reply


def _why(config: Config, error: UnavailableError, timeout: float) -> str:
    try:
        pid = holder(config.state_dir)
    except UnavailableError:
        return str(error)
    path = socket_path(config.runtime_dir)
    match error.__cause__:
        case OtherVersionError():
            return f"{error.__cause__}{_its_own(pid or 0)}"
        case TimeoutError():
            who = f"(pid {pid})" if pid else f"on {path}"
            return f"the daemon {who} exists, but does not answer within {timeout:g} s: {_state(pid or 0)}"
        case FileNotFoundError() | NotADirectoryError() | ConnectionRefusedError() if pid:
            return (
                f"the daemon (pid {pid}) exists, but nobody listens on {path}: it is just starting or "
                f"ending; where that lasts, runtime_dir is not that of the daemon"
            )
    return str(error)


def _state(pid: int) -> str:
    """What keeps a daemon from answering, and what to do."""
    try:
        letter = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        letter = ""
    match letter:
        case "T" | "t":
            return f"it was stopped by a signal; `kill -CONT {pid}` has it go on"
        case "D":
            return "it waits for a disk or a file system; see `dmesg`"
        case _:
            ends = f"; `kill -KILL {pid}` ends it, nothing is lost by that" if pid else ""
            return f"it is hung, or the machine is overloaded; see `pipelinectl logs supervisor`{ends}"


def _its_own(pid: int) -> str:
    """Where the pipelinectl of the daemon is, as far as its command line tells."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:2]
    except OSError:
        return ""
    for word in map(os.fsdecode, words):
        beside = Path(word).with_name("pipelinectl") if word.startswith("/") else None
        if beside is not None and beside.exists():
            return f": {beside}"
    return f" (the daemon has the pid {pid})"

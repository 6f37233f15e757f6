"""The program of the guard (guard.py): ``python -I -S guard_process.py OWNER_PID [FOLDER_TO_REMOVE]``.

It is asked in JSON lines on stdin and answers on stdout. It ends when that pipe closes or the owner is no
longer its parent. It has one thread on purpose: the kernel's "kill with the parent" is bound to the *thread*
that started the child. It imports the standard library only and starts in 30 ms.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

PR_SET_PDEATHSIG = 1
OWNER_CHECK_SECONDS = 0.5
# The guard ends when its owner does, not before.
IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE)


def _prepare_child() -> None:
    """In the child, before exec: take signals again, and get SIGKILL with the guard (only Linux has it)."""
    for number in IGNORED:
        signal.signal(number, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _serve(request: dict[str, Any], children: dict[int, subprocess.Popen[bytes]]) -> int | None:
    match request["do"]:
        case "start":
            with Path(request["output"]).open("ab") as output:
                child = subprocess.Popen(
                    request["command"],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    preexec_fn=_prepare_child,  # noqa: PLW1509 - this process has one thread
                )
            children[child.pid] = child
            return child.pid
        case "signal":
            child = children[request["pid"]]
            child.send_signal(request["number"])  # polls first: never a stranger with a reused id
        case "poll":
            return children[request["pid"]].poll()
    return None


def _guard(owner: int) -> dict[int, subprocess.Popen[bytes]]:
    """Serve the owner until it is gone; the children left."""
    children: dict[int, subprocess.Popen[bytes]] = {}
    buffer = b""
    # The parent is watched too: a process the owner forked may hold the other end of the pipe.
    while os.getppid() == owner:
        if not select.select([0], [], [], OWNER_CHECK_SECONDS)[0]:
            continue
        data = os.read(0, 65536)
        if not data:
            break
        buffer += data
        while b"\n" in buffer:
            line, _, buffer = buffer.partition(b"\n")
            try:
                reply: dict[str, Any] = {"result": _serve(json.loads(line), children)}
            except OSError as error:
                reply = {"error": str(error)}
            try:
                os.write(1, json.dumps(reply).encode() + b"\n")
            except BrokenPipeError:
                return children
    return children


def _main(owner: int, remove: str | None) -> None:
    if remove is not None:
        Path(remove).mkdir(mode=0o700, parents=True)
    for child in (children := _guard(owner)).values():
        child.kill()
    for child in children.values():
        child.wait()
    if remove is not None:
        shutil.rmtree(remove, ignore_errors=True)


if __name__ == "__main__":
    for ignored in IGNORED:
        signal.signal(ignored, signal.SIG_IGN)
    _main(int(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else None)

"""A guard: a small process that starts children for its owner and lets none of them outlive the owner.

The owner talks to it in JSON lines over its stdin and stdout. When that pipe closes, or the owner is no
longer the guard's parent, whatever way the owner died, the guard kills every child and removes the folder
it was told to. The children in turn get SIGKILL from the kernel when the guard dies (Linux). The guard is
single-threaded on purpose: that signal is bound to the *thread* that started the child.

This file is also the guard's program; it is run by path and imports the standard library only.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

__all__ = ["Guard"]

PR_SET_PDEATHSIG = 1
OWNER_CHECK_SECONDS = 0.5
# The guard ends when its owner does, not before.
IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE)


class Guard:
    """The owner's side. Thread-safe: one request at a time.

    ``remove`` is a folder the guard creates now and removes when it ends, or None.
    """

    def __init__(self, remove: Path | None = None) -> None:
        arguments = [] if remove is None else [str(remove)]
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, str(os.getpid()), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # a Ctrl-C in the owner's terminal is the owner's to handle
        )
        self._ask({"do": "hello"})

    @property
    def pid(self) -> int:
        """The process id of the guard itself."""
        return self._process.pid

    def start(self, command: list[str], *, output: Path, env: dict[str, str] | None = None) -> int:
        """Start ``command`` with stdout and stderr appended to ``output``; its process id.

        ``env`` is added to the owner's environment.
        """
        return int(self._ask({"do": "start", "command": command, "output": str(output), "env": env or {}}))

    def signal(self, pid: int, number: signal.Signals) -> None:
        """Send a signal to a child; a child that has ended gets none."""
        self._ask({"do": "signal", "pid": pid, "number": int(number)})

    def poll(self, pid: int) -> int | None:
        """The exit code of a child (negative: the signal that killed it), None while it runs."""
        code = self._ask({"do": "poll", "pid": pid})
        return None if code is None else int(code)

    def wait(self, pid: int, seconds: float) -> int | None:
        """Wait for a child to end; its exit code, or None when it still runs after ``seconds``."""
        deadline = time.monotonic() + seconds
        while (code := self.poll(pid)) is None and time.monotonic() < deadline:
            time.sleep(0.02)
        return code

    def run(
        self, command: list[str], *, output: Path, seconds: float, env: dict[str, str] | None = None
    ) -> int:
        """Run ``command`` to its end and return its exit code; killed (-9) after ``seconds``."""
        pid = self.start(command, output=output, env=env)
        code = self.wait(pid, seconds)
        if code is None:
            self.signal(pid, signal.SIGKILL)
            code = self.wait(pid, 10)
        return -signal.SIGKILL if code is None else code

    def close(self) -> None:
        """End the guard: children are killed and the folder is removed before this returns."""
        with self._lock:
            if self._process.stdin:
                with contextlib.suppress(BrokenPipeError):
                    self._process.stdin.close()
            self._process.wait()
            if self._process.stdout:
                self._process.stdout.close()

    def _ask(self, request: dict[str, Any]) -> Any:
        with self._lock:
            assert self._process.stdin
            assert self._process.stdout
            answer = ""
            with contextlib.suppress(BrokenPipeError, ValueError):  # ValueError: closed by close()
                self._process.stdin.write(json.dumps(request) + "\n")
                self._process.stdin.flush()
                answer = self._process.stdout.readline()
        if not answer:
            raise ChildProcessError(
                f"the guard process {self._process.pid} of the local Kafka is gone; start it again"
            )
        reply = json.loads(answer)
        if "error" in reply:
            raise OSError(reply["error"])
        return reply["result"]


# --- the guard process ---------------------------------------------------------------------------------


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
                    env={**os.environ, **request["env"]},
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

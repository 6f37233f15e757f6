"""A guard: a small process that starts children for its owner and lets none of them outlive the owner.

When the owner is gone, whatever way it died, the guard kills every child and removes the folder it was told
to; when the guard is gone, the kernel kills its children (Linux). Its program is guard_process.py.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from pipelined.errors import UnavailableError

__all__ = ["Guard"]

PROGRAM = Path(__file__).with_name("guard_process.py")


class Guard:
    """The owner's side. Thread-safe: one request at a time.

    ``remove`` is a folder the guard creates now and removes when it ends, or None.
    """

    def __init__(self, remove: Path | None = None) -> None:
        arguments = [] if remove is None else [str(remove)]
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(PROGRAM), str(os.getpid()), *arguments],
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

    def start(self, command: list[str], *, output: Path) -> int:
        """Start ``command`` with stdout and stderr appended to ``output``; its process id."""
        return int(self._ask({"do": "start", "command": command, "output": str(output)}))

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

    def run(self, command: list[str], *, output: Path, seconds: float) -> int:
        """Run ``command`` to its end and return its exit code; killed (-9) after ``seconds``."""
        pid = self.start(command, output=output)
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
            raise UnavailableError(
                "the guard process of the local Kafka is gone, and with it the brokers; start again"
            )
        reply = json.loads(answer)
        if "error" in reply:
            raise UnavailableError(f"the local Kafka could not be run: {reply['error']}")
        return reply["result"]

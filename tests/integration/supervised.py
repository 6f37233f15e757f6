"""Runs ``supervised_daemon.py`` in a process of its own and looks at it from outside."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pipelined
from pipelined.supervisor.pidfile import holder
from pipelined.supervisor.protocol import ask
from waiting import until

# The daemon is to find the very package that the tests import.
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(pipelined.__file__).parents[1])}
SCRIPT = Path(__file__).with_name("supervised_daemon.py")
PATIENCE_S = 20.0


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not, which kill(pid, 0) cannot tell."""
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


class Daemon:
    """A supervisor with ``workers`` (type → what it does), in the order of the flow."""

    def __init__(self, folder: Path, workers: dict[str, dict[str, Any]], **more: Any) -> None:
        self.folder = folder
        supervisor = {"backoff_first_s": 0.02, "backoff_max_s": 0.1} | more.pop("supervisor", {})
        self.order = {
            "folder": str(folder),
            "state_dir": str(folder / "state"),
            "runtime_dir": str(folder / "run"),
            "workers": workers,
            "supervisor": supervisor,
        } | more
        self.log_file = folder / "log"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def command(self) -> list[str]:
        return [sys.executable, str(SCRIPT), json.dumps(self.order)]

    def start(self, *, until_ready: bool = True) -> Daemon:
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=ENVIRONMENT,
            )
        if until_ready:
            self.wait_for("daemon", "ready")
        return self

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def end(self, patience: float = PATIENCE_S) -> int:
        """Wait for its end; its exit code."""
        assert self.process is not None
        return self.process.wait(patience)

    def stop(self) -> int:
        self.signal(signal.SIGTERM)
        return self.end()

    def kill(self) -> None:
        """Clean up, whatever state it is in."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        until(lambda: not any(map(is_alive, self.pids())), "its workers are gone")

    def events(self, worker: str = "", what: str = "") -> list[dict[str, Any]]:
        try:
            lines = (self.folder / "events").read_text().splitlines()
        except FileNotFoundError:
            return []
        events = map(json.loads, lines)
        return [e for e in events if worker in {"", e["worker"]} and what in {"", e["what"]}]

    def wait_for(self, worker: str, what: str, times: int = 1) -> dict[str, Any]:
        def seen() -> dict[str, Any] | None:
            assert self.process is None or self.process.poll() is None or self.events(worker, what), (
                self.log()
            )
            found = self.events(worker, what)
            return found[times - 1] if len(found) >= times else None

        found = until(seen, f"{worker} {what} × {times}")
        assert isinstance(found, dict)
        return found

    def pids(self) -> set[int]:
        """Every worker process that ever began."""
        return {event["pid"] for event in self.events(what="start")}

    def ask(self, **request: Any) -> dict[str, Any]:
        return ask(self.order["runtime_dir"], request)

    def status(self) -> dict[str, Any]:
        document = self.ask(cmd="status")["status"]
        assert isinstance(document, dict)
        return document

    def worker(self, name: str, index: int = 0) -> dict[str, Any]:
        """Its entry in the status."""
        return next(w for w in self.status()["workers"] if (w["type"], w["index"]) == (name, index))

    def until_state(self, name: str, state: str) -> dict[str, Any]:
        def reached() -> dict[str, Any] | None:
            worker = self.worker(name)
            return worker if worker["state"] == state else None

        found = until(reached, f"{name} is {state}")
        assert isinstance(found, dict)
        return found

    def log(self) -> str:
        return self.log_file.read_text()


@contextlib.contextmanager
def daemons(folder: Path) -> Iterator[Callable[..., Daemon]]:
    """Make daemons in ``folder``; none is left at the end, also none that a command has started."""
    made: list[Daemon] = []

    def make(workers: dict[str, dict[str, Any]], **more: Any) -> Daemon:
        made.append(Daemon(folder, workers, **more))
        return made[-1]

    yield make
    for each in made:
        each.kill()
        if pid := holder(each.order["state_dir"]):
            # It may be gone already: a child that it had just forked holds the lock a moment longer.
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            until(lambda pid=pid: not is_alive(pid))

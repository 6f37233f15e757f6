"""A real supervisor with real children, and a socket in systemd's place."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import supervised
from supervised import Daemon, daemons

from waiting import until


class Listener:
    """Everything that came so far, in lines."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.setblocking(False)
        self.lines: list[str] = []

    def __contains__(self, line: str) -> bool:
        while True:
            try:
                self.lines += self.socket.recv(65536).decode().splitlines()
            except BlockingIOError:
                return any(each.startswith(line) for each in self.lines)


@pytest.fixture
def listener(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Listener]:
    made = Listener(tmp_path / "notify")
    monkeypatch.setitem(supervised.ENVIRONMENT, "NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setitem(supervised.ENVIRONMENT, "WATCHDOG_USEC", "600000")
    yield made
    made.socket.close()


def test_systemd_hears_of_start_trouble_and_stop(tmp_path: Path, listener: Listener) -> None:
    slow = {"backoff_first_s": 30, "backoff_max_s": 30, "healthy_s": 600}
    with daemons(tmp_path) as make:
        daemon: Daemon = make({"source": {}, "sink": {"drains": 1.5}}, supervisor=slow).start()
        until(lambda: "READY=1" in listener and "STATUS=running: 2 workers" in listener, "it is told of")
        os.kill(daemon.worker("source")["pid"], signal.SIGKILL)
        trouble = "STATUS=degraded: 1 of 2 run, 1 in BACKOFF (source/0: killed by SIGKILL, next try in "
        until(lambda: trouble in listener, "the trouble is told of")
        beaten = listener.lines.count("WATCHDOG=1")
        until(lambda: "WATCHDOG=1" in listener and listener.lines.count("WATCHDOG=1") > beaten, "it beats")
        assert "STOPPING=1" not in listener
        assert daemon.stop() == 0
        assert "STOPPING=1" in listener
        assert "EXTEND_TIMEOUT_USEC=" in listener


def test_a_supervisor_that_stands_still_feeds_no_watchdog(tmp_path: Path, listener: Listener) -> None:
    with daemons(tmp_path) as make:
        daemon: Daemon = make({"sink": {}}).start()
        until(lambda: "WATCHDOG=1" in listener)
        daemon.signal(signal.SIGSTOP)
        assert "READY=1" in listener  # takes what came before
        listener.lines.clear()
        time.sleep(1.0)
        assert "WATCHDOG=1" not in listener
        daemon.signal(signal.SIGCONT)
        until(lambda: "WATCHDOG=1" in listener, "it goes on")

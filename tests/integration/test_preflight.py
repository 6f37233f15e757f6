"""What the daemon asks the brokers before it starts its workers, in a process of its own."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import pipelined
from pipelined.cli import run
from pipelined.config.tree import Config
from processes import gone
from waiting import until

ROOT = Path(pipelined.__file__).parents[1]
#: A daemon whose question is never answered; it prints the pid of the process that asks.
ASKING = """
import os, time
from pipelined.cli import run
from pipelined.config.tree import Config
def ask(*_):
    print(os.getpid(), flush=True)
    time.sleep(600)
run._cluster = ask
run._preflight(Config(), [])
"""


def test_brokers_that_never_answer_hold_up_the_start_only_so_long(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(run, "_PREFLIGHT_LIMIT_S", 0.3)
    monkeypatch.setattr(run, "_cluster", lambda *_: time.sleep(600))
    began = time.monotonic()
    with caplog.at_level(logging.WARNING):
        run._preflight(Config(), [])
    assert time.monotonic() - began < 10
    assert "starting all the same" in caplog.text
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_who_asks_does_not_outlive_a_daemon_that_is_killed_meanwhile() -> None:
    command = [sys.executable, "-c", ASKING]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as daemon:
        assert daemon.stdout
        asking = int(daemon.stdout.readline())
        try:
            assert not gone(asking)
            daemon.kill()
            daemon.wait()
            until(lambda: gone(asking), "the process that asks is gone", 10)
        finally:
            if not gone(asking):
                os.kill(asking, signal.SIGKILL)

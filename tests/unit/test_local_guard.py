"""The guard: children and folder never outlive the owner, however it dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipelined.errors import UnavailableError
from pipelined.local.guard import Guard
from processes import gone
from waiting import until

ROOT = Path(__file__).parents[2]
OWNER = """
import os, pathlib, sys, time
from pipelined.local.guard import Guard
folder = pathlib.Path(sys.argv[1])
guard = Guard(remove=folder)
(folder / "data").write_text("x")
child = guard.start(["sleep", "600"], output=folder / "log")
forked = 0
if sys.argv[2] == "fork":
    forked = os.fork()  # holds the owner's end of the pipe too
    if not forked:
        time.sleep(600)
print(guard.pid, child, forked, flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("how", ["alone", "fork"])
def test_a_killed_owner_leaves_no_child_no_guard_and_no_folder(tmp_path: Path, how: str) -> None:
    folder = tmp_path / "data"
    command = [sys.executable, "-c", OWNER, str(folder), how]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as owner:
        assert owner.stdout
        guard, child, forked = (int(word) for word in owner.stdout.readline().split())
        try:
            assert not gone(child)
            owner.kill()
            owner.wait()
            until(lambda: gone(child) and gone(guard) and not folder.exists())
        finally:
            if forked:
                os.kill(forked, signal.SIGKILL)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux kills a child with its parent")
def test_a_killed_guard_takes_its_children_along_and_the_owner_is_told(tmp_path: Path) -> None:
    guard = Guard()
    child = guard.start(["sleep", "600"], output=tmp_path / "log")
    os.kill(guard.pid, signal.SIGKILL)
    until(lambda: gone(child))
    with pytest.raises(UnavailableError, match="guard process"):
        guard.poll(child)
    guard.close()


def test_a_child_takes_sigterm_although_its_guard_does_not(tmp_path: Path) -> None:
    guard = Guard()
    try:
        child = guard.start(["sleep", "600"], output=tmp_path / "log")
        os.kill(guard.pid, signal.SIGTERM)
        guard.signal(child, signal.SIGTERM)
        assert guard.wait(child, 10) == -signal.SIGTERM
    finally:
        guard.close()


def test_a_signal_to_a_child_that_ended_is_no_error(tmp_path: Path) -> None:
    guard = Guard()
    try:
        child = guard.start(["true"], output=tmp_path / "log")
        assert guard.wait(child, 10) == 0
        guard.signal(child, signal.SIGKILL)
        assert guard.poll(child) == 0
    finally:
        guard.close()


def test_run_returns_the_exit_code_and_keeps_what_was_printed(tmp_path: Path) -> None:
    guard = Guard()
    try:
        log = tmp_path / "log"
        assert guard.run(["sh", "-c", "echo said; exit 3"], output=log, seconds=10) == 3
        assert log.read_text() == "said\n"
        assert guard.run(["sleep", "600"], output=log, seconds=0.1) == -signal.SIGKILL
    finally:
        guard.close()


def test_a_program_that_is_not_there_is_an_error_with_its_name(tmp_path: Path) -> None:
    guard = Guard()
    try:
        with pytest.raises(UnavailableError, match="no-such-program"):
            guard.start([str(tmp_path / "no-such-program")], output=tmp_path / "log")
    finally:
        guard.close()

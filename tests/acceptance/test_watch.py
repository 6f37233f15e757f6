"""``pipelinectl status --watch`` in a real terminal: redrawn in place, across a restart, until Ctrl-C."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import realparts
from flow import Flow, pipelinectl_command
from waiting import until


class Terminal:
    """A shell in a terminal of tmux, 100 columns wide; what it has written is also in a file, as it came."""

    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self._socket = str(flow.folder / "tmux")
        self.written = flow.folder / "written"
        shell = "env -u COLUMNS -u LINES TERM=screen-256color PS1='$ ' sh"
        self._tmux("-f", "/dev/null", "new-session", "-d", "-x", "100", "-y", "30", shell)
        self._tmux("pipe-pane", f"cat > {shlex.quote(str(self.written))}")
        until(lambda: "$" in self.shown(), "the shell asks for a command")

    def _tmux(self, *arguments: str) -> str:
        done = self._flow.run(["tmux", "-S", self._socket, *arguments])
        assert done.returncode == 0, done.stderr
        return done.stdout

    def type(self, text: str) -> None:
        """Type a line."""
        self._tmux("send-keys", "-l", text)
        self._tmux("send-keys", "Enter")

    def press(self, key: str) -> None:
        self._tmux("send-keys", key)

    def resize(self, columns: int) -> None:
        self._tmux("resize-window", "-x", str(columns), "-y", "30")

    def shown(self) -> str:
        """What stands on the screen now."""
        return self._tmux("capture-pane", "-p")

    def is_alternate(self) -> tuple[bool, bool]:
        """Whether the screen is the alternate one, and whether the cursor shows."""
        alternate, cursor = self._tmux("display-message", "-p", "#{alternate_on} #{cursor_flag}").split()
        return alternate == "1", cursor == "1"

    def close(self) -> None:
        self._flow.run(["tmux", "-S", self._socket, "kill-server"])


@pytest.fixture
def terminal(flow: Flow) -> Iterator[Terminal]:
    realparts.require("tmux", realparts.command_missing("tmux"))
    made = Terminal(flow)
    yield made
    made.close()


def head(shown: str) -> list[str]:
    """The names of the columns on the screen."""
    return next((line.split() for line in shown.splitlines() if line.startswith("worker ")), [])


@pytest.mark.timeout(180)
def test_the_status_is_watched_across_a_restart_until_ctrl_c_gives_the_terminal_back(
    flow: Flow, terminal: Terminal
) -> None:
    flow.start()
    assert flow.daemon is not None
    first = flow.daemon.pid
    terminal.type("echo what stood here before")
    watch = pipelinectl_command("--config", flow.config_file, "status", "--watch", "300ms")
    terminal.type(f'{shlex.join(watch)}; echo "ended with $?"')
    until(lambda: f"(pid {first}) is running" in terminal.shown(), "the status is shown")
    until(lambda: {"lag", "errors", "pid"} <= set(head(terminal.shown())), "its table is shown")
    assert terminal.is_alternate() == (True, False)
    assert "what stood here before" not in terminal.shown()
    assert terminal.shown().count("download/0 ") == 1

    terminal.resize(50)
    until(lambda: head(terminal.shown()) and "pid" not in head(terminal.shown()), "columns are dropped")
    (row,) = (line for line in terminal.shown().splitlines() if line.startswith("download/0 "))
    assert row.split()[1] == "RUNNING"
    terminal.resize(100)
    until(lambda: "pid" in head(terminal.shown()), "they are back")

    assert flow.stop() == 0
    until(lambda: "no daemon listens on" in terminal.shown(), "it says that the daemon is gone")
    assert "no answer for" in terminal.shown()
    flow.start()
    second = flow.daemon.pid
    until(lambda: f"(pid {second}) is running" in terminal.shown(), "it is seen again")
    assert "no answer for" not in terminal.shown()

    terminal.press("C-c")
    until(lambda: "ended with 0" in terminal.shown(), "Ctrl-C ends it with 0")
    assert terminal.is_alternate() == (False, True)
    assert "what stood here before" in terminal.shown()
    assert "is running" not in terminal.shown()
    assert "^C" not in terminal.shown()
    terminal.type("stty -a | tr ' ;' '\\n\\n' | grep -x -e echo -e -echo")
    answer = until(lambda: {"echo", "-echo"}.intersection(terminal.shown().splitlines()), "the shell answers")
    assert answer == {"echo"}, "what is typed shows again"

    assert _cleared(terminal.written) <= 1, "nothing is cleared between two looks: that would flicker"


def _cleared(written: Path) -> int:
    """How often the whole screen was cleared; a terminal may do it once, on its way to the other screen."""
    return written.read_bytes().count(b"\x1b[2J")


@pytest.mark.timeout(180)
def test_a_watch_that_is_told_to_end_gives_the_terminal_back_as_well(flow: Flow, terminal: Terminal) -> None:
    watch = pipelinectl_command("--config", flow.config_file, "status", "--watch", "1h")
    terminal.type(f'{shlex.join(watch)}; echo "ended with $?"')
    until(lambda: "no answer for 0s: no daemon listens" in terminal.shown(), "it looks for the daemon")
    (pid,) = (pid for pid, line in flow.processes().items() if line.endswith("status --watch 1h"))
    subprocess.run(["kill", "-TERM", str(pid)], check=True)
    until(lambda: "ended with 143" in terminal.shown(), "it ends as one that was told to")
    assert terminal.is_alternate() == (False, True)


@pytest.mark.timeout(180)
def test_ctrl_z_gives_the_terminal_back_until_the_watch_goes_on(flow: Flow, terminal: Terminal) -> None:
    terminal.type(shlex.join(pipelinectl_command("--config", flow.config_file, "status", "--watch", "1h")))
    until(lambda: "no answer for 0s: no daemon listens" in terminal.shown(), "it looks for the daemon")
    terminal.press("C-z")
    until(lambda: terminal.is_alternate() == (False, True), "the shell has its screen")
    terminal.type("echo still here; fg")
    until(lambda: "no daemon listens" in terminal.shown(), "it is drawn again, at once")
    assert terminal.is_alternate() == (True, False)
    assert "still here" not in terminal.shown()
    terminal.press("C-c")
    until(lambda: terminal.is_alternate() == (False, True), "it ends")
    assert "still here" in terminal.shown()

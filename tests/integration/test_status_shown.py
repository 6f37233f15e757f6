"""``pipelinectl status`` on a terminal, in a pipe, and again and again."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import termios
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from operators import CTL, ctl, whereabouts
from supervised import ENVIRONMENT, Daemon, daemons

from waiting import until


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Callable[..., Daemon]]:
    with daemons(tmp_path) as make:
        yield make


def test_what_is_not_a_terminal_gets_every_column_and_no_colour(daemon: Callable[..., Daemon]) -> None:
    run = daemon({"download": {}}).start()
    shown = ctl(run, "status", COLUMNS="40", TERM="xterm-256color")
    assert "\x1b" not in shown.stdout
    assert shown.stdout.splitlines()[1].endswith("restarts  in  out  dead")


def in_terminal(run: Daemon, *arguments: str, columns: int, **environ: str) -> str:
    """What a command writes to a terminal of this width."""
    keyboard, terminal = os.openpty()
    termios.tcsetwinsize(terminal, (50, columns))
    process = subprocess.Popen(
        [*CTL, *whereabouts(run), *arguments],
        stdin=terminal,
        stdout=terminal,
        stderr=subprocess.PIPE,
        env={name: value for name, value in ENVIRONMENT.items() if name not in {"COLUMNS", "LINES"}}
        | environ,
    )
    os.close(terminal)
    shown = b""
    try:
        while chunk := os.read(keyboard, 65536):
            shown += chunk
    except OSError:
        pass  # what the other end's last close gives
    finally:
        os.close(keyboard)
    _, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (0, b"")
    return shown.decode()


def test_a_terminal_gets_colours_unless_nobody_wants_them_and_a_table_that_fits(
    daemon: Callable[..., Daemon],
) -> None:
    run = daemon({"download": {}}).start()
    plain = {"TERM": "xterm", "NO_COLOR": ""}
    assert "\x1b[32mRUNNING" in in_terminal(run, "status", columns=80, **plain)
    for unwanted in ({"TERM": "xterm", "NO_COLOR": "1"}, {"TERM": "dumb"}):
        shown = in_terminal(run, "status", columns=80, **unwanted)
        assert "\x1b" not in shown
        assert all(len(line) <= 80 for line in shown.splitlines())
        assert "errors" in shown


def test_watch_prints_a_block_for_each_look_where_there_is_no_terminal(
    daemon: Callable[..., Daemon], tmp_path: Path
) -> None:
    run = daemon({"download": {}}).start()
    output = tmp_path / "watched"
    with output.open("wb") as stream:
        watching = subprocess.Popen(
            [*CTL, *whereabouts(run), "status", "--watch", "200ms"],
            stdout=stream,
            stderr=subprocess.STDOUT,
            env=ENVIRONMENT,
        )
    with watching:
        try:
            until(lambda: output.read_text().count("is running") >= 2)
            assert run.stop() == 0
            until(
                lambda: re.search(r"^no answer for \d+s: no daemon listens", output.read_text(), re.MULTILINE)
            )
            seen = output.read_text().count("is running")
            run.start()
            until(lambda: output.read_text().count(f"(pid {run.pid}) is running") > 0)
            assert output.read_text().count("is running") > seen
        finally:
            watching.send_signal(signal.SIGINT)
        assert watching.wait(30) == 0
    blocks = output.read_text().split("\n\n")
    assert len(blocks) > 3
    assert "Traceback" not in output.read_text()
    assert "\x1b" not in output.read_text()


def test_watched_as_json_each_look_is_a_line(daemon: Callable[..., Daemon]) -> None:
    run = daemon({"download": {}}).start()
    watching = subprocess.Popen(
        [*CTL, *whereabouts(run), "status", "--json", "--watch", "100ms"],
        stdout=subprocess.PIPE,
        env=ENVIRONMENT,
    )
    with watching:
        assert watching.stdout is not None
        try:
            documents = [json.loads(watching.stdout.readline()) for _ in range(3)]
        finally:
            watching.send_signal(signal.SIGINT)
        assert watching.wait(30) == 0
    assert {document["pid"] for document in documents} == {run.pid}

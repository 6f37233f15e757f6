"""How a daemon was called, read from its process, and how the next one is called."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelined.cli.commandline import CommandLine, of_process
from waiting import until


@contextlib.contextmanager
def called(folder: Path, *arguments: str, name: str = "pipelined") -> Iterator[int]:
    """A process with such a command line, which waits; its pid."""
    script = folder / name
    script.write_text("#!/bin/sh\nread wait\n")
    script.chmod(0o755)
    with subprocess.Popen([script, *arguments], stdin=subprocess.PIPE, cwd=folder) as process:
        try:
            # It is empty for a moment after the call.
            until(Path(f"/proc/{process.pid}/cmdline").read_bytes, "it has its command line")
            yield process.pid
        finally:
            process.kill()


def test_a_daemon_tells_by_its_process_how_it_was_called(tmp_path: Path) -> None:
    options = ["--set", "a=b c", "--config=my.toml", "--set", "d=", "run", "--worker", "upload"]
    with called(tmp_path, *options) as pid:
        assert of_process(pid) == CommandLine(
            tmp_path / "my.toml", ("a=b c", "d="), ("run", "--worker", "upload"), tmp_path
        )
    with called(tmp_path, "run") as pid:
        assert of_process(pid) == CommandLine(folder=tmp_path)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("another", ["run"]),
        ("pipelined", []),
        ("pipelined", ["demo"]),
        ("pipelined", ["--no-such-option", "run"]),
    ],
)
def test_what_is_no_call_of_a_daemon_is_not_taken_for_one(
    tmp_path: Path, name: str, arguments: list[str]
) -> None:
    with called(tmp_path, *arguments, name=name) as pid:
        assert of_process(pid) is None


def test_a_process_that_is_gone_tells_nothing() -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    assert of_process(gone.pid) is None


def test_what_an_operator_gives_comes_on_top_of_what_the_daemon_had(tmp_path: Path) -> None:
    had = CommandLine(tmp_path / "a.toml", ("x.y=1", "z=2"), ("run", "--worker", "upload"), tmp_path)
    assert had.with_changes(None, ()) == had
    changed = had.with_changes(tmp_path / "b.toml", (" x.y = 3", "w=4"))
    assert changed == CommandLine(tmp_path / "b.toml", ("z=2", " x.y = 3", "w=4"), had.run, tmp_path)
    assert str(CommandLine(overrides=("a=b c",))) == "pipelined --set 'a=b c' run"
    assert changed.command()[:3] == [sys.executable, "-m", "pipelined"]


def test_the_command_is_the_one_that_a_process_tells_again(tmp_path: Path) -> None:
    line = CommandLine(tmp_path / "a.toml", ("x=1",), ("run", "--worker", "upload"), tmp_path)
    with called(tmp_path, *line.command()[3:]) as pid:
        assert of_process(pid) == line

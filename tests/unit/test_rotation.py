"""The log file of a daemon in the background: how it is put aside, and who follows."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelined.config.tree import Logs
from pipelined.logs import rotation
from pipelined.logs.rotation import RotatedFile, files, is_behind

SMALL = Logs(file_mb=0.001, files_kept=3)


class Stream:
    """A descriptor that appends to the log, as the standard streams of a daemon do."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "pipelined.log"
        self.descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)

    def write(self, text: str, size: int = 1000) -> None:
        os.write(self.descriptor, text.ljust(size - 1, ".").encode() + b"\n")

    def rotated(self, settings: Logs = SMALL) -> RotatedFile:
        return RotatedFile(self.path, settings, [self.descriptor])

    def begins(self) -> dict[str, str]:
        """How each file begins, the newest first."""
        return {each.name: each.read_text()[:1] for each in files(self.path)}


@pytest.fixture
def stream(tmp_path: Path) -> Iterator[Stream]:
    made = Stream(tmp_path)
    yield made
    os.close(made.descriptor)


def test_a_full_file_is_put_aside_and_the_oldest_goes(stream: Stream) -> None:
    rotated = stream.rotated()
    stream.write("a", 999)
    rotated.look()
    assert stream.begins() == {"pipelined.log": "a"}
    stream.write("a")
    for text in "bcdef":
        rotated.look()
        assert is_behind(stream.path, stream.descriptor)
        assert stream.path.read_bytes() == b""
        stream.write(text)
    assert stream.begins() == {
        "pipelined.log": "f",
        "pipelined.log.1": "e",
        "pipelined.log.2": "d",
        "pipelined.log.3": "c",
    }
    assert stream.path.stat().st_mode & 0o777 == 0o640, "who could read it can read the next one"
    stream.rotated(Logs(file_mb=0.001, files_kept=1)).look()
    assert stream.begins() == {"pipelined.log": "", "pipelined.log.1": "f"}


def test_0_is_never(stream: Stream) -> None:
    stream.write("a", 100_000)
    stream.rotated(Logs(file_mb=0)).look()
    assert stream.begins() == {"pipelined.log": "a"}


def test_a_process_that_did_not_make_it_follows_and_puts_nothing_aside(stream: Stream) -> None:
    rotated = stream.rotated()
    stream.write("a")
    child = os.fork()
    if child == 0:
        rotated.look()
        os._exit(int(is_behind(stream.path.with_name("pipelined.log.1"), stream.descriptor)))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert stream.begins() == {"pipelined.log": "a"}

    release, held = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(held)
        os.read(release, 1)
        stream.write("late")
        rotated.look()
        stream.write("followed")
        os._exit(0)
    rotated.look()
    stream.write("parent")
    os.close(held)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    os.close(release)
    aside = stream.path.with_name("pipelined.log.1").read_text().splitlines()
    assert [line.rstrip(".") for line in aside] == ["a", "late"], "what is late is not lost"
    assert [line.rstrip(".") for line in stream.path.read_text().splitlines()] == ["parent", "followed"]


def test_a_file_that_somebody_took_away_or_put_aside_is_begun_anew(stream: Stream) -> None:
    rotated = stream.rotated()
    stream.path.unlink()
    rotated.look()
    stream.write("b")
    assert stream.begins() == {"pipelined.log": "b"}
    stream.path.rename(stream.path.with_name("pipelined.log.1"))
    stream.path.touch()
    rotated.look()
    stream.write("c")
    assert stream.begins() == {"pipelined.log": "c", "pipelined.log.1": "b"}


def test_streams_that_go_elsewhere_are_left_alone(stream: Stream, tmp_path: Path) -> None:
    other = os.open(tmp_path / "other", os.O_WRONLY | os.O_CREAT)
    try:
        rotated = RotatedFile(stream.path, SMALL, [other])
        os.write(other, b"x" * 2000)
        stream.write("a", 2000)
        rotated.look()
        assert is_behind(tmp_path / "other", other)
        assert stream.begins() == {"pipelined.log": "a"}
    finally:
        os.close(other)


def test_a_link_stays_and_the_file_behind_it_is_put_aside(stream: Stream, tmp_path: Path) -> None:
    link = tmp_path / "state" / "pipelined.log"
    link.parent.mkdir()
    link.symlink_to(stream.path)
    rotated = RotatedFile(link, SMALL, [stream.descriptor])
    stream.write("a")
    rotated.look()
    stream.write("b")
    assert (link.is_symlink(), link.read_text()[:1]) == (True, "b")
    assert stream.begins() == {"pipelined.log": "b", "pipelined.log.1": "a"}


def test_where_it_cannot_be_put_aside_that_is_said_once_and_the_log_goes_on(
    stream: Stream, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    rotated = stream.rotated()
    blocking = stream.path.with_name("pipelined.log.new")
    blocking.mkdir()
    stream.write("a")
    rotated.look()
    rotated.look()
    (told,) = caplog.records
    assert "is full and cannot be put aside" in told.getMessage()
    stream.write("b")
    assert stream.path.stat().st_size == 2000
    blocking.rmdir()
    rotated.look()
    assert stream.path.stat().st_size == 2000, "not at once"
    monkeypatch.setattr(rotation, "_AGAIN_S", 0.0)
    blocking.mkdir()
    again = stream.rotated()
    again.look()
    blocking.rmdir()
    with caplog.at_level(logging.INFO):
        again.look()
    assert stream.path.stat().st_size == 0
    assert f"what was logged before is in {stream.path}.1" in caplog.text

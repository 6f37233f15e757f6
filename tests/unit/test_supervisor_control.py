"""The control socket in a loop of the test, on a clock of the test."""

from __future__ import annotations

import json
import os
import selectors
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelined.errors import AlreadyRunningError, UnavailableError, UsageError
from pipelined.supervisor.control import Control, Peer
from pipelined.supervisor.protocol import address, ask, pack, unpack
from pipelined.supervisor.timers import Timers


class Loop:
    """A control socket, and one turn of its loop at a time."""

    def __init__(self, folder: Path) -> None:
        self.now = 0.0
        self.selector = selectors.DefaultSelector()
        self.timers = Timers(lambda: self.now)
        self.control = Control(str(folder), self.selector, self.timers, self.answer)
        self.control.open()

    def answer(self, request: dict[str, Any], peer: Peer) -> dict[str, Any]:
        assert peer[:2] == (os.getpid(), os.getuid())
        if request["cmd"] == "bug":
            raise RuntimeError("a bug")
        if request["cmd"] == "usage":
            raise UsageError("called wrongly")
        return {"echo": request["cmd"]}

    def turn(self) -> None:
        """Handle whatever there is and is due, until nothing is left."""
        while (events := self.selector.select(0)) or self.timers.wait() == 0:
            for key, mask in events:
                key.data(mask)
            self.timers.run()

    def connect(self) -> socket.socket:
        peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        peer.settimeout(5)
        with address(self.control.path) as where:
            peer.connect(where)
        return peer


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Loop]:
    made = Loop(tmp_path)
    yield made
    made.control.close()
    made.selector.close()


def test_half_a_request_is_hung_up_on_after_five_seconds(loop: Loop) -> None:
    with loop.connect() as slow, loop.connect() as quick:
        slow.sendall(b'{"v":1,')
        loop.turn()
        loop.now = 4.9
        quick.sendall(pack({"cmd": "quick"}))
        loop.turn()
        assert json.loads(quick.recv(4096)) == {"v": 1, "ok": True, "echo": "quick"}
        assert len(loop.control.connections) == 2
        loop.now = 5.1
        loop.turn()
        assert "no whole request came in time" in json.loads(slow.recv(4096))["error"]
        assert slow.recv(1) == b""
        assert len(loop.control.connections) == 1, "the one that asked has its time anew"


def test_a_bug_in_an_answer_is_told_and_leaves_the_loop_alive(
    loop: Loop, caplog: pytest.LogCaptureFixture
) -> None:
    with loop.connect() as peer, peer.makefile("rb") as stream:
        peer.sendall(pack({"cmd": "bug"}) + pack({"cmd": "usage"}) + pack({"cmd": "more"}))
        loop.turn()
        replies = [json.loads(stream.readline()) for _ in range(3)]
    assert [reply["ok"] for reply in replies] == [False, False, True]
    assert "its log has the traceback" in replies[0]["error"]
    assert replies[1]["error"] == "called wrongly"
    assert "RuntimeError: a bug" in caplog.text


def test_a_peer_that_vanishes_in_the_middle_is_forgotten(loop: Loop) -> None:
    peer = loop.connect()
    peer.sendall(pack({"cmd": "x"}) * 3 + b'{"v":')
    peer.close()
    loop.turn()
    assert loop.control.connections == set()
    assert loop.timers.wait() is None


def test_a_socket_somebody_listens_on_is_not_taken_over(loop: Loop, tmp_path: Path) -> None:
    with pytest.raises(AlreadyRunningError, match="another daemon answers"):
        Loop(tmp_path)
    assert loop.control.path.is_socket()


def test_a_file_that_is_no_socket_is_not_removed(tmp_path: Path) -> None:
    (tmp_path / "control.sock").write_text("mine")
    with pytest.raises(UnavailableError, match="cannot be made"):
        Loop(tmp_path)
    assert (tmp_path / "control.sock").read_text() == "mine"


def test_closing_does_not_remove_the_socket_of_a_successor(tmp_path: Path) -> None:
    first = Loop(tmp_path)
    first.control.path.unlink()
    second = Loop(tmp_path)
    first.control.close()
    assert second.control.path.is_socket()
    second.control.close()
    assert not second.control.path.exists()


def test_a_daemon_that_does_not_answer_is_told_as_such(loop: Loop, tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="gave no answer"):
        ask(str(tmp_path), {"cmd": "status"}, timeout=0.05)
    with pytest.raises(UnavailableError, match="no daemon listens"):
        ask(str(tmp_path / "nowhere"), {"cmd": "status"})


@pytest.mark.parametrize("line", [b"", b"{", b"[1]", b'{"v":"1"}', b"\x00"])
def test_a_line_that_is_no_message_is_a_value_error(line: bytes) -> None:
    with pytest.raises(ValueError, match=r"JSON|version"):
        unpack(line)


def test_a_message_comes_back_as_it_was_packed() -> None:
    assert unpack(pack({"cmd": "stop", "type": "dépôt"})) == {"v": 1, "cmd": "stop", "type": "dépôt"}

"""The control socket and the pidfile, with a real daemon behind them."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from supervised import Daemon, daemons

from pipelined.errors import AlreadyRunningError, UnavailableError
from pipelined.supervisor.pidfile import Pidfile, holder
from waiting import until


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Callable[..., Daemon]]:
    with daemons(tmp_path) as make:
        yield make


def connected(run: Daemon) -> socket.socket:
    peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    peer.settimeout(10)
    peer.connect(str(Path(run.order["runtime_dir"]) / "control.sock"))
    return peer


def reply_to(run: Daemon, frame: bytes) -> dict[str, Any]:
    """The reply to one frame, after which the daemon must hang up."""
    with connected(run) as peer, peer.makefile("rb") as stream:
        peer.sendall(frame)
        reply = json.loads(stream.readline())
        assert stream.read() == b""
    assert isinstance(reply, dict)
    return reply


def test_a_stopped_type_stays_stopped_until_it_is_started(daemon: Callable[..., Daemon]) -> None:
    run = daemon({"source": {}, "sink": {"processes": 2}}).start()
    assert run.ask(cmd="stop", type="sink") == {"v": 1, "ok": True, "state": "running"}
    until(lambda: [w["state"] for w in run.status()["workers"]] == ["RUNNING", "STOPPED", "STOPPED"])
    assert run.worker("sink")["reason"] == "stopped"
    assert len(run.events("sink", "end")) == 2
    run.ask(cmd="start", type="sink")
    until(lambda: [w["state"] for w in run.status()["workers"]] == ["RUNNING"] * 3)
    assert run.worker("sink")["restarts"] == 0
    assert run.stop() == 0


def test_a_type_that_an_operator_stops_leaves_for_good_and_one_that_is_restarted_does_not(
    daemon: Callable[..., Daemon],
) -> None:
    run = daemon({"source": {"lives": 0.1, "once": True}, "sink": {"processes": 2}}).start()
    run.ask(cmd="stop", type="sink")
    until(lambda: len(run.events("sink", "leave")) == 2)
    until(lambda: run.worker("sink", 1)["state"] == "STOPPED")
    run.ask(cmd="start", type="sink")
    until(lambda: run.status()["state"] == "running")
    assert run.stop() == 0
    assert len(run.events("sink", "end")) == 4
    assert len(run.events("sink", "leave")) == 2
    assert run.events("source", "leave") == []


def test_a_daemon_that_is_told_to_leave_leaves_with_every_worker(daemon: Callable[..., Daemon]) -> None:
    run = daemon({"source": {"drains": 0.3}, "sink": {"processes": 2}}).start()
    run.ask(cmd="stop")
    run.wait_for("source", "stop")
    run.ask(cmd="stop", leave=True)  # it came to the operator's mind a moment later
    assert run.end() == 0
    assert len(run.events("source", "leave")) == 1
    assert len(run.events("sink", "leave")) == 2


def test_start_takes_a_type_out_of_fatal_and_out_of_its_back_off(daemon: Callable[..., Daemon]) -> None:
    run = daemon(
        {
            "other": {},
            "fatal": {"raises": "config", "once": True},
            "flapping": {"dies": 1, "once": True, "start_s": 1.0},
        },
        supervisor={"backoff_first_s": 60.0, "backoff_max_s": 60.0},
    ).start()
    assert [w["state"] for w in run.status()["workers"]] == ["RUNNING", "FATAL", "BACKOFF"]
    run.ask(cmd="start", type="fatal")
    run.ask(cmd="start", type="flapping")
    until(lambda: [w["state"] for w in run.status()["workers"]] == ["RUNNING"] * 3)
    assert run.status()["state"] == "running"


def test_a_type_started_while_it_drains_comes_back(daemon: Callable[..., Daemon]) -> None:
    run = daemon({"sink": {"drains": 0.2}}).start()
    run.ask(cmd="stop", type="sink")
    run.ask(cmd="start", type="sink")
    run.wait_for("sink", "ready", 2)
    assert run.until_state("sink", "RUNNING")["last_exit"] == "exit 0: done"


def test_two_stops_at_once_are_one_stop(daemon: Callable[..., Daemon]) -> None:
    run = daemon({"source": {"drains": 0.5}, "sink": {}}).start()
    with ThreadPoolExecutor(2) as pool:
        replies = list(pool.map(lambda _: run.ask(cmd="stop"), range(2)))
    assert replies == [{"v": 1, "ok": True, "state": "stopping"}] * 2
    refused = run.ask(cmd="start", type="sink")
    assert (refused["ok"], "is stopping" in refused["error"]) == (False, True)
    assert run.end() == 0
    assert len(run.events("source", "end")) == 1
    with pytest.raises(UnavailableError, match="no daemon listens"):
        run.status()


@pytest.mark.parametrize(
    ("frame", "error"),
    [
        (b"\xff\xfe\n", "not JSON"),
        (b"[" * 3000 + b"\n", "not JSON"),
        (b"[]\n", "not a JSON object"),
        (b'{"cmd":"status"}\n', "version 1"),
        (b'{"v":2,"cmd":"status"}\n', "version 1 of the protocol, and was spoken to in 2"),
        (b'{"v":[[]],"cmd":"status"}\n', "version 1"),
        (b"\n", "not JSON"),
        (b"\x00" * 64 + b"\n", "not JSON"),
        (b'{"v":1,"cmd":"' + b"x" * 5000, "at most 4096 bytes"),
    ],
)
def test_a_bad_frame_is_told_and_the_connection_closed(
    daemon: Callable[..., Daemon], frame: bytes, error: str
) -> None:
    run = daemon({"sink": {}}).start()
    reply = reply_to(run, frame)
    assert (reply["ok"], error in reply["error"]) == (False, True)
    assert run.status()["state"] == "running"


@pytest.mark.parametrize(
    "command",
    [
        {"cmd": "fly"},
        {},
        {"cmd": "start"},
        {"cmd": "stop", "type": "nosuch"},
        {"cmd": "stop", "type": 5},
        {"cmd": "stop", "type": None},
        {"cmd": ["stop"]},
        {"cmd": "scale", "type": "sink", "processes": True},
        {"cmd": "scale", "type": "sink"},
        {"cmd": "stop", "typ": "sink"},
    ],
)
def test_an_unknown_command_or_type_is_told_and_changes_nothing(
    daemon: Callable[..., Daemon], command: dict[str, Any]
) -> None:
    run = daemon({"sink": {}}).start()
    reply = run.ask(**command)
    assert reply["ok"] is False
    clear = ("this daemon knows", "this daemon has sink", "unknown field 'typ'", "cannot have True")
    assert any(words in reply["error"] for words in clear), reply
    assert run.status()["state"] == "running"


def test_one_connection_may_ask_many_times_and_in_pieces(daemon: Callable[..., Daemon]) -> None:
    run = daemon({"sink": {}}).start()
    with connected(run) as peer, peer.makefile("rb") as stream:
        request = b'{"v":1,"cmd":"status"}\n'
        peer.sendall(request[:7])
        peer.sendall(request[7:] + request * 200)
        replies = [json.loads(stream.readline()) for _ in range(201)]
        peer.sendall(request)
        peer.shutdown(socket.SHUT_WR)
        replies.append(json.loads(stream.readline()))
    assert all(reply["status"]["state"] == "running" for reply in replies)


def test_a_peer_that_reads_nothing_holds_up_nobody(daemon: Callable[..., Daemon]) -> None:
    run = daemon({"sink": {"processes": 8}}).start()
    with connected(run) as deaf:
        deaf.setblocking(False)
        requests = b'{"v":1,"cmd":"status"}\n' * 100_000
        assert deaf.send(requests) < len(requests)
        assert run.status()["state"] == "running"
    assert run.stop() == 0


def test_more_connections_than_are_served_at_once_wait_for_their_turn(daemon: Callable[..., Daemon]) -> None:
    run = daemon({"sink": {}}).start()
    held = [connected(run) for _ in range(40)]
    for peer in held:
        peer.sendall(b'{"v":1,"cmd":"status"}\n')
    for peer in held:
        with peer, peer.makefile("rb") as stream:
            assert json.loads(stream.readline())["ok"] is True


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
def test_the_socket_is_for_the_daemons_user_and_group_only(daemon: Callable[..., Daemon]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = daemon({"sink": {}}, runtime_dir=name).start()
        path = folder / "control.sock"
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        # As somebody might; the credentials of the peer are checked all the same.
        folder.chmod(0o755)
        path.chmod(0o666)
        assert "only root" in status_as_nobody(path, "[]")["error"]
        assert status_as_nobody(path, "[12345, 0]")["status"]["state"] == "running", (
            "one of the daemon's group"
        )
        assert run.stop() == 0


def status_as_nobody(path: Path, groups: str) -> dict[str, Any]:
    script = (
        "import os,socket,sys; os.setgroups(eval(sys.argv[2])); os.setgid(65534); os.setuid(65534);"
        "s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]);"
        """s.sendall(b'{"v":1,"cmd":"status"}\\n'); print(s.makefile().readline())"""
    )
    output = subprocess.run([sys.executable, "-c", script, path, groups], stdout=subprocess.PIPE, check=True)
    reply = json.loads(output.stdout)
    assert isinstance(reply, dict)
    return reply


def test_a_second_daemon_is_refused_and_names_the_first(daemon: Callable[..., Daemon]) -> None:
    first = daemon({"sink": {}}).start()
    second = daemon({"sink": {}}).start(until_ready=False)
    assert second.end() == 73
    assert f"another daemon (pid {first.pid}) holds" in second.log()
    assert first.worker("sink")["restarts"] == 0
    assert first.stop() == 0


def test_a_second_daemon_on_the_same_socket_is_refused_and_takes_nothing_away(
    daemon: Callable[..., Daemon], tmp_path: Path
) -> None:
    first = daemon({"sink": {}}).start()
    second = daemon({"sink": {}}, state_dir=str(tmp_path / "other")).start(until_ready=False)
    assert second.end() == 73
    assert "give this one its own runtime_dir" in second.log()
    assert first.status()["pid"] == first.pid


def test_what_a_killed_daemon_left_behind_is_taken_over(daemon: Callable[..., Daemon]) -> None:
    first = daemon({"sink": {}}).start()
    first.kill()
    assert (Path(first.order["runtime_dir"]) / "control.sock").exists()
    second = daemon({"sink": {}}).start(until_ready=False)
    until(lambda: len(second.events("daemon", "ready")) == 2)
    assert holder(second.order["state_dir"]) == second.pid
    assert second.stop() == 0
    assert holder(second.order["state_dir"]) is None
    assert not (Path(first.order["runtime_dir"]) / "control.sock").exists()


def test_the_lock_is_held_as_long_as_any_worker_lives(tmp_path: Path) -> None:
    pidfile = Pidfile(str(tmp_path))
    pidfile.acquire()
    worker = os.fork()
    if worker == 0:
        time.sleep(60)
        os._exit(0)
    pidfile.release()
    try:
        with pytest.raises(AlreadyRunningError):
            Pidfile(str(tmp_path)).acquire()
    finally:
        os.kill(worker, 9)
        os.waitpid(worker, 0)
    after = Pidfile(str(tmp_path))
    after.acquire()
    assert holder(str(tmp_path)) == os.getpid()
    after.release()


def test_a_runtime_folder_too_long_for_a_socket_address_works(
    daemon: Callable[..., Daemon], tmp_path: Path
) -> None:
    run = daemon({"sink": {}}, runtime_dir=str(tmp_path / ("r" * 120))).start()
    assert run.status()["state"] == "running"
    assert run.stop() == 0

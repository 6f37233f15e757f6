"""The control socket on bad days: floods, half frames, endless lines, many at once; no harm is done."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from supervised import Daemon, daemons

from pipelined.errors import UnavailableError
from waiting import until


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Callable[..., Daemon]]:
    with daemons(tmp_path) as make:
        yield make


def connected(run: Daemon) -> socket.socket:
    peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    peer.settimeout(10)

    def taken() -> bool:
        with contextlib.suppress(BlockingIOError):  # the kernel's queue is full: the daemon had no turn yet
            peer.connect(str(Path(run.order["runtime_dir"]) / "control.sock"))
            return True
        return False

    until(taken)
    return peer


def memory_kb(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))


def test_ten_megabytes_in_one_line_are_refused_and_the_reply_is_not_lost(
    daemon: Callable[..., Daemon],
) -> None:
    run = daemon({"sink": {}}).start()
    before = memory_kb(run.pid)
    for end in (b"\n", b""):
        with connected(run) as peer, peer.makefile("rb") as stream:
            peer.sendall(b'{"v":1,"cmd":"' + b"x" * 10_000_000 + end)
            reply = json.loads(stream.readline())
            assert "at most 4096 bytes" in reply["error"]
            assert stream.read() == b""
    assert memory_kb(run.pid) - before < 4096, "nothing of it is kept"
    assert run.status()["state"] == "running"


@pytest.mark.parametrize("through", [True, False])
def test_half_a_frame_is_told_when_its_peer_is_through_or_falls_silent(
    daemon: Callable[..., Daemon], through: bool
) -> None:
    run = daemon({"sink": {}}).start()
    with connected(run) as peer, peer.makefile("rb") as stream:
        peer.sendall(b'{"v":1,"cmd":"stop"')
        if through:
            peer.shutdown(socket.SHUT_WR)
        reply = json.loads(stream.readline())
        assert ("no end" if through else "no whole request came in time") in reply["error"]
        assert stream.read() == b""
    assert run.status()["state"] == "running", "half a stop stops nothing"


def test_a_flood_of_silent_connections_keeps_an_operator_waiting_for_seconds_only(
    daemon: Callable[..., Daemon],
) -> None:
    run = daemon({"sink": {}}).start()
    flood = [connected(run) for _ in range(150)]
    began = time.monotonic()
    assert run.ask(cmd="stop", type="sink")["ok"]
    assert time.monotonic() - began < 4.9
    for peer in flood:
        peer.close()
    run.until_state("sink", "STOPPED")


def flood(run: Daemon, over: threading.Event) -> int:
    """Send requests and take replies as fast as both ends can; how many bytes came back."""
    received = 0
    with connected(run) as peer:
        peer.setblocking(False)
        while not over.wait(0.0005):
            with contextlib.suppress(BlockingIOError):
                peer.send(b'{"v":1,"cmd":"status"}\n' * 100)
            with contextlib.suppress(BlockingIOError):
                received += len(peer.recv(1 << 20))
    return received


def test_a_flood_of_requests_holds_up_neither_an_operator_nor_the_workers(
    daemon: Callable[..., Daemon],
) -> None:
    run = daemon({"sink": {"processes": 4, "hang_s": 5.0}}, supervisor={"backoff_first_s": 0.0}).start()
    over = threading.Event()
    with ThreadPoolExecutor(3) as pool:
        floods = [pool.submit(flood, run, over) for _ in range(3)]
        try:
            waits = []
            for _ in range(10):
                began = time.monotonic()
                assert run.status()["state"] == "running"
                waits.append(time.monotonic() - began)
            os.kill(run.worker("sink")["pid"], signal.SIGKILL)
            run.wait_for("sink", "ready", 5)
        finally:
            over.set()
        assert all(each.result(10) > 10_000 for each in floods), "they were answered all the time"
    assert min(waits) < 0.2, waits
    assert [worker["restarts"] for worker in run.status()["workers"]] == [1, 0, 0, 0]


def test_a_stop_among_others_who_stop_and_start_a_type_ends_the_daemon(
    daemon: Callable[..., Daemon],
) -> None:
    run = daemon({"source": {}, "sink": {"processes": 2}}).start()

    def play(number: int) -> None:
        with contextlib.suppress(UnavailableError):
            for _ in range(30):
                run.ask(cmd="stop" if number % 2 else "start", type="sink")

    with ThreadPoolExecutor(4) as pool:
        players = [pool.submit(play, number) for number in range(4)]
        run.ask(cmd="stop")
        for each in players:
            each.result(20)
    assert run.end() == 0

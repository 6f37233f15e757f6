"""What systemd is told, read at the other end of the socket."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest

from pipelined.config.tree import Worker
from pipelined.stats import registry
from pipelined.stats.slots import SharedStats, WorkerState
from pipelined.supervisor import notify as notify_module
from pipelined.supervisor.notify import Notify
from pipelined.supervisor.states import Worker as Supervised
from pipelined.supervisor.states import WorkerSpec
from pipelined.supervisor.timers import Timers

SPECS = [WorkerSpec("download", 2, Worker(hang_s=1.0)), WorkerSpec("upload", 1, Worker(hang_s=1.0))]


@dataclass
class Stand:
    """As much of a supervised worker as is told of."""

    type: str
    index: int
    state: WorkerState = WorkerState.STOPPED
    reason: str = ""
    wanted: bool = True


class Systemd:
    """The receiving end, and the daemon's workers as the test sets them."""

    def __init__(self, address: str, **variables: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address)
        self.socket.setblocking(False)
        self.environ = {"NOTIFY_SOCKET": address.replace("\0", "@"), **variables, "OTHER": "stays"}
        self.stats = SharedStats({spec.type: spec.processes for spec in SPECS})
        self.timers = Timers()
        self.notify = Notify(self.stats, self.timers, self.environ)
        self.workers = [
            cast(Supervised, Stand(spec.type, index)) for spec in SPECS for index in range(spec.processes)
        ]
        for worker in self.workers:
            self.set(worker, WorkerState.RUNNING)

    def set(self, worker: Supervised, state: WorkerState, reason: str = "", next_try: float = 0.0) -> None:
        worker.state, worker.reason = state, reason
        slot = self.stats.slot(worker.type, worker.index)
        slot.parent.write(state=state, pid=1, restarts=0, last_exit=0, since=0, next_try=next_try)
        slot.child.beat()

    def follow(self, state: str) -> list[str]:
        """One turn of the loop, a second after the last one; what comes of it."""
        self.notify._next_tick = 0.0
        self.notify.follow(state, SPECS, self.workers)
        return self.received()

    def received(self) -> list[str]:
        messages = []
        while True:
            try:
                messages += self.socket.recv(65536).decode().splitlines()
            except BlockingIOError:
                return messages


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    made = Systemd(str(tmp_path / "notify"), WATCHDOG_USEC="600000", WATCHDOG_PID=str(os.getpid()))
    yield made
    made.notify.forget()
    made.socket.close()


def test_without_its_socket_systemd_is_told_nothing_and_nothing_fails() -> None:
    stats, timers = SharedStats({"download": 1}), Timers()
    notify = Notify(stats, timers, {})
    notify.follow("running", SPECS, [])
    notify.forget()
    assert timers.wait() is None, "it does not even wake the loop"


def test_no_child_inherits_what_systemd_gave_to_the_parent(systemd: Systemd) -> None:
    assert systemd.environ == {"OTHER": "stays"}


def test_ready_is_said_once_when_all_types_have_been_started(systemd: Systemd) -> None:
    systemd.set(systemd.workers[1], WorkerState.STARTING)
    systemd.set(systemd.workers[2], WorkerState.STOPPED)
    starting = systemd.follow("starting")
    assert "STATUS=starting: 1 of 3 run, 1 starting (download/1)" in starting
    assert "READY=1" not in starting
    for worker in systemd.workers:
        systemd.set(worker, WorkerState.RUNNING)
    assert systemd.follow("running")[:2] == ["READY=1", "STATUS=running: 3 workers"]
    assert "READY=1" not in systemd.follow("running")


def test_ready_does_not_wait_for_ever_for_brokers_that_are_away(
    systemd: Systemd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify_module, "_READY_AT_LATEST_S", 0.0)
    assert "READY=1" in systemd.follow("starting")


def test_the_status_names_each_worker_in_trouble_its_reason_and_its_next_try(systemd: Systemd) -> None:
    first, second, upload = systemd.workers
    systemd.set(first, WorkerState.BACKOFF, "killed by SIGKILL", time.time() + 2.1)
    systemd.set(second, WorkerState.BACKOFF, "exit 70:\nan unexpected exception", time.time() + 0.2)
    systemd.set(upload, WorkerState.FATAL, "exit 78: configuration")
    assert (
        "STATUS=degraded: 0 of 3 run, 1 in FATAL (upload/0: exit 78: configuration), 2 in BACKOFF "
        "(download/0: killed by SIGKILL, next try in 2 s; download/1: exit 70: an unexpected exception)"
    ) in systemd.follow("degraded")


def test_a_type_that_an_operator_stopped_is_no_trouble(systemd: Systemd) -> None:
    systemd.workers[2].wanted = False
    systemd.set(systemd.workers[2], WorkerState.STOPPED, "stopped")
    assert "STATUS=running: 2 workers" in systemd.follow("running")


def test_the_status_names_who_runs_and_gives_no_sign(
    systemd: Systemd, monkeypatch: pytest.MonkeyPatch
) -> None:
    talks, drains, _ = systemd.workers
    later = time.monotonic_ns() + 23_400_000_000
    monkeypatch.setattr(time, "monotonic_ns", lambda: later)
    systemd.set(talks, WorkerState.RUNNING)
    drains.state = WorkerState.STOPPING  # it has a deadline of its own
    line = "STATUS=running: 2 of 3 run, 1 draining (download/1), 1 silent (upload/0: no sign for 23 s)"
    assert line in systemd.follow("running")


def test_the_status_names_who_is_paused_and_what_it_says(systemd: Systemd) -> None:
    child = systemd.stats.slot("upload", 0).child
    child.set(registry.PAUSED, 1)
    child.say("the store refuses our login")
    line = "STATUS=running: 3 workers, 1 paused (upload/0: the store refuses our login)"
    assert line in systemd.follow("running")


def test_the_status_names_who_an_operator_paused_whatever_else_keeps_it(systemd: Systemd) -> None:
    upload, download = (systemd.stats.slot(worker, 0) for worker in ("upload", "download"))
    upload.parent.pause(True)
    line = "STATUS=running: 3 workers, 1 paused (upload/0: by an operator)"
    assert line in systemd.follow("running")
    for slot in (upload, download):
        slot.child.set(registry.PAUSED, 1)
        slot.child.say("the disk is full")
    line = "STATUS=running: 3 workers, 2 paused (download/0: the disk is full; upload/0: by an operator)"
    assert line in systemd.follow("running")
    systemd.set(systemd.workers[2], WorkerState.STARTING)
    assert "1 paused (download/0: the disk is full)" in systemd.follow("degraded")[0]
    systemd.set(systemd.workers[2], WorkerState.RUNNING)
    for slot in (upload, download):
        slot.child.set(registry.PAUSED, 0)
    upload.parent.pause(False)
    assert "STATUS=running: 3 workers" in systemd.follow("running")


def test_of_many_in_the_same_state_three_are_named(systemd: Systemd) -> None:
    many = [cast(Supervised, Stand("download", 0, WorkerState.STARTING)) for _ in range(5)]
    systemd.workers = many
    line = "starting: 0 of 5 run, 5 starting (download/0; download/0; download/0; and 2 more)"
    assert f"STATUS={line}" in systemd.follow("starting")


def test_the_same_status_is_not_sent_again(systemd: Systemd) -> None:
    systemd.follow("running")
    assert [line for line in systemd.follow("running") if line.startswith("STATUS=")] == []


def test_while_it_drains_systemd_is_asked_for_more_time_again_and_again(systemd: Systemd) -> None:
    systemd.follow("running")
    first = systemd.follow("stopping")
    assert first[0] == "STOPPING=1"
    assert "EXTEND_TIMEOUT_USEC=15000000" in first
    second = systemd.follow("stopping")
    assert "STOPPING=1" not in second
    assert "EXTEND_TIMEOUT_USEC=15000000" in second


def test_a_drain_beyond_all_deadlines_gets_no_more_time(systemd: Systemd) -> None:
    systemd.follow("stopping")
    systemd.notify._since -= sum(spec.settings.drain_s for spec in SPECS) + 31
    assert not any(line.startswith("EXTEND") for line in systemd.follow("stopping"))


def test_a_reload_is_told_with_its_time_and_ends_with_ready(systemd: Systemd) -> None:
    systemd.follow("running")
    before = time.monotonic_ns() // 1000
    word, stamp, _, status = systemd.follow("reloading")
    assert word == "RELOADING=1"
    assert before <= int(stamp.removeprefix("MONOTONIC_USEC=")) <= time.monotonic_ns() // 1000
    assert status == "STATUS=reloading: 3 workers"
    assert "READY=1" not in systemd.follow("reloading")
    assert systemd.follow("running")[:2] == ["READY=1", "STATUS=running: 3 workers"]


def test_the_watchdog_is_fed_at_a_third_of_its_time(systemd: Systemd) -> None:
    assert "WATCHDOG=1" in systemd.follow("running")
    assert "WATCHDOG=1" not in systemd.follow("running")
    systemd.notify._next_ping -= 0.2
    assert "WATCHDOG=1" in systemd.follow("running")


def test_the_watchdog_is_not_fed_while_a_worker_hangs_that_nobody_judges(
    systemd: Systemd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify_module, "_JUDGING_MARGIN_S", -1.0)  # a sign of just now counts as too old
    monkeypatch.setattr(notify_module, "_THAW_S", 0.0)
    assert "WATCHDOG=1" not in systemd.follow("running")
    (status,) = systemd.follow("running")
    assert "the watchdog will end this daemon" in status

    systemd.set(systemd.workers[0], WorkerState.STOPPING, "hung")
    systemd.set(systemd.workers[1], WorkerState.BACKOFF, "hung")
    systemd.set(systemd.workers[2], WorkerState.FATAL, "hung")
    assert "WATCHDOG=1" in systemd.follow("degraded"), "they are dealt with"


def test_a_watchdog_meant_for_another_process_is_not_fed(tmp_path: Path) -> None:
    systemd = Systemd(str(tmp_path / "notify"), WATCHDOG_USEC="600000", WATCHDOG_PID="1")
    assert "WATCHDOG=1" not in systemd.follow("running")
    systemd.notify.forget()
    systemd.socket.close()


def test_an_abstract_address_is_reached() -> None:
    systemd = Systemd(f"\0pipelined-test-{os.getpid()}-{time.monotonic_ns()}")
    assert "READY=1" in systemd.follow("running")
    systemd.notify.forget()
    systemd.socket.close()


def test_what_a_full_socket_did_not_take_is_told_later_in_order(systemd: Systemd) -> None:
    stuffed = 0
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.setblocking(False)
        while True:
            try:
                other.sendto(b"x", systemd.socket.getsockname())
                stuffed += 1
            except BlockingIOError:
                break
    begun = time.monotonic()
    systemd.notify.follow("running", SPECS, systemd.workers)
    systemd.notify.follow("reloading", SPECS, systemd.workers)
    assert time.monotonic() - begun < 1, "it does not wait"
    assert systemd.received() == ["x"] * stuffed
    told = systemd.follow("running")
    assert told[0] == "READY=1"
    assert told[1] == "RELOADING=1"
    assert told[3] == "READY=1"
    assert "STATUS=running: 3 workers" in told
    assert "WATCHDOG=1" in told


def test_a_socket_that_is_gone_is_no_reason_to_fail(tmp_path: Path) -> None:
    systemd = Systemd(str(tmp_path / "notify"))
    (tmp_path / "notify").unlink()
    assert systemd.follow("running") == []
    systemd.notify.forget()
    systemd.socket.close()

"""What systemd is asked to keep, and how a daemon finds what it kept."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipelined.stats.slots import SharedStats
from pipelined.supervisor import store as store_module
from pipelined.supervisor.notify import Notify
from pipelined.supervisor.store import COUNTERS, ENDPOINT, Store
from pipelined.supervisor.timers import Timers

#: Where this process has no descriptors of its own.
BASE = 700
Given = Callable[..., Store]


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> Iterator[Given]:
    """A store as of a process to which systemd passed on memory files of these names."""
    monkeypatch.setattr(store_module, "_FIRST_FD", BASE)
    passed: list[int] = []
    stores: list[Store] = []

    def make(*names: str, environ: dict[str, str] | None = None, **more: str) -> Store:
        for index, name in enumerate(names):
            fd = os.memfd_create(name)
            passed.append(os.dup2(fd, BASE + index, inheritable=True))
            os.close(fd)
        variables = {} if environ is None else environ
        variables |= {
            "NOTIFY_SOCKET": "/nowhere",
            "LISTEN_PID": str(os.getpid()),
            "LISTEN_FDS": str(len(names)),
            "LISTEN_FDNAMES": ":".join(names),
            **more,
        }
        stores.append(Store(variables))
        return stores[-1]

    yield make
    for fd in {*passed, *(fd for each in stores for _, fd in each.orders)} - {-1}:
        if is_open(fd):
            os.close(fd)


def is_open(fd: int) -> bool:
    return Path(f"/proc/self/fd/{fd}").exists()


def name_of(fd: int | None) -> str:
    return str(Path(f"/proc/self/fd/{fd}").readlink()).removeprefix("/memfd:").removesuffix(" (deleted)")


def test_what_was_kept_is_found_by_its_name_and_once(given: Given) -> None:
    store = given(ENDPOINT, COUNTERS)
    assert name_of(counters := store.take(COUNTERS)) == COUNTERS
    assert name_of(store.take(ENDPOINT)) == ENDPOINT
    assert store.take(COUNTERS) is None
    assert counters is not None
    assert not os.get_inheritable(counters), "no program that is executed gets it"
    assert not store.orders, "systemd still has them, it need not be told"


def test_no_child_believes_itself_meant(given: Given) -> None:
    environ = {"OTHER": "stays", "LISTEN_PIDFDID": "1", "FDSTORE": "4"}
    given(COUNTERS, environ=environ)
    assert environ == {"OTHER": "stays", "NOTIFY_SOCKET": "/nowhere"}


def test_what_is_meant_for_another_process_is_not_touched(given: Given) -> None:
    store = given(COUNTERS, LISTEN_PID="1")
    assert store.take(COUNTERS) is None
    assert is_open(BASE)


@pytest.mark.parametrize("count", ["", "x", "-1", "9"])
def test_a_number_of_descriptors_that_is_wrong_is_no_reason_to_fail(given: Given, count: str) -> None:
    store = given(COUNTERS, LISTEN_FDS=count)
    assert (store.take(COUNTERS) is not None) == (count == "9")


def test_what_nobody_knows_or_is_there_twice_is_removed(given: Given) -> None:
    store = given("of-a-later-version", COUNTERS, COUNTERS, ENDPOINT)
    assert store.take(COUNTERS) is None
    assert [text for text, _ in store.orders] == [
        "FDSTOREREMOVE=1\nFDNAME=of-a-later-version",
        f"FDSTOREREMOVE=1\nFDNAME={COUNTERS}",
    ]
    assert [is_open(BASE + index) for index in range(4)] == [False, False, False, True]


def test_a_new_one_takes_the_place_of_the_old_one(given: Given) -> None:
    store = given(COUNTERS)
    old = store.take(COUNTERS)
    assert old is not None
    os.close(old)
    for _ in range(2):
        fd = os.memfd_create("new")
        store.keep(COUNTERS, fd)
        os.close(fd)
    assert [text.splitlines()[0] for text, _ in store.orders] == ["FDSTOREREMOVE=1", "FDSTORE=1"] * 2
    assert name_of(store.orders[1][1]) == "new", "it is open until it is sent"


def test_without_systemd_nothing_is_kept() -> None:
    store = Store({})
    store.keep(COUNTERS, 0)
    store.drop(COUNTERS)
    assert store.take(COUNTERS) is None
    assert (store.there, list(store.orders)) == (False, [])


def test_systemd_gets_the_very_file_and_in_order_before_it_is_told_ready(
    given: Given, tmp_path: Path
) -> None:
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(address)
        systemd.settimeout(10)
        environ: dict[str, str] = {}
        store = given("old", environ=environ, NOTIFY_SOCKET=address)
        memory = os.memfd_create("memory")
        store.keep(COUNTERS, memory)
        notify = Notify(SharedStats({"upload": 1}), Timers(), environ, store.orders)
        notify.follow("running", [], [])
        message, fds, _, _ = socket.recv_fds(systemd, 4096, 4)
        assert (message, fds) == (b"FDSTOREREMOVE=1\nFDNAME=old", [])
        message, (fd,), _, _ = socket.recv_fds(systemd, 4096, 4)
        assert message == b"FDSTORE=1\nFDNAME=counters\nFDPOLL=0"
        assert os.fstat(fd).st_ino == os.fstat(memory).st_ino
        assert systemd.recv(4096) == b"READY=1"
        assert not store.orders
        os.close(fd)
        os.close(memory)
        notify.forget()


def test_a_child_closes_what_was_not_sent_yet(given: Given, tmp_path: Path) -> None:
    environ: dict[str, str] = {}
    store = given(environ=environ, NOTIFY_SOCKET=str(tmp_path / "nobody"))
    memory = os.memfd_create("memory")
    store.keep(COUNTERS, memory)
    ((_, fd),) = store.orders
    notify = Notify(SharedStats({"upload": 1}), Timers(), environ, store.orders)
    notify.follow("running", [], [])
    assert is_open(fd), "it is sent again"
    notify.forget()
    assert not is_open(fd)
    os.close(memory)

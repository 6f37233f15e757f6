"""The endpoint's socket in the hands of the parent: whose it is, and when it is given up."""

from __future__ import annotations

import dataclasses
import os
import socket
from collections.abc import Iterator

import pytest

from pipelined.config.tree import Config, Endpoint
from pipelined.supervisor import store as store_module
from pipelined.supervisor.listener import Listener
from pipelined.supervisor.store import ENDPOINT, Store

#: Where this process has no descriptors of its own.
BASE = 740
ANY = Config(endpoint=Endpoint(port=0))


def on(port: int, host: str = "127.0.0.1") -> Config:
    return Config(endpoint=Endpoint(host=host, port=port))


def without_endpoint(config: Config) -> Config:
    none = dataclasses.replace(config.workers.endpoint, processes=0)
    return dataclasses.replace(config, workers=dataclasses.replace(config.workers, endpoint=none))


class Systemd:
    """Keeps one socket from daemon to daemon."""

    def __init__(self) -> None:
        self.kept = -1
        self.told: list[str] = []
        self._listeners: list[Listener] = []

    def put(self, fd: int) -> None:
        """Have it keep this, instead of what it has."""
        self.forget()
        self.kept = os.dup(fd)

    def daemon(self, config: Config, *, runs: bool = True) -> Listener:
        environ = {"NOTIFY_SOCKET": "/nowhere", "LISTEN_FDNAMES": ENDPOINT}
        if self.kept >= 0:
            os.dup2(self.kept, BASE, inheritable=True)
            environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"}
        self.store = Store(environ)
        self._listeners.append(Listener(self.store, config, runs=runs))
        self.follow()
        return self._listeners[-1]

    def follow(self) -> None:
        """Do what it is told."""
        while self.store.orders:
            text, fd = self.store.orders.popleft()
            self.told.append(text.partition("=")[0])
            if fd >= 0:
                self.put(fd)
                os.close(fd)
            else:
                self.forget()

    def end(self, listener: Listener) -> None:
        """The daemon is gone, however that came about."""
        listener._close()

    def forget(self) -> None:
        if self.kept >= 0:
            os.close(self.kept)
            self.kept = -1

    def remove(self) -> None:
        self.forget()
        for each in self._listeners:
            each._close()


@pytest.fixture
def systemd(monkeypatch: pytest.MonkeyPatch) -> Iterator[Systemd]:
    monkeypatch.setattr(store_module, "_FIRST_FD", BASE)
    made = Systemd()
    yield made
    made.remove()


def worker(listener: Listener, config: Config, name: str = "endpoint") -> socket.socket | None:
    """What a worker gets; it has a copy of the parent's descriptor, which it may close."""
    mine = Listener.__new__(Listener)
    mine.__dict__ |= listener.__dict__
    if listener._socket is not None:
        mine._socket = listener._socket.dup()
    claimed = mine.claim(config, name)
    mine._close()
    return claimed


def port_of(listener: Listener) -> int:
    assert listener._socket is not None
    port: int = listener._socket.getsockname()[1]
    return port


def is_refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=10).close()
    except ConnectionRefusedError:
        return True
    return False


def test_who_asks_while_the_daemon_restarts_is_answered_by_the_next_one(systemd: Systemd) -> None:
    first = systemd.daemon(ANY)
    port = port_of(first)
    assert systemd.told == ["FDSTORE"]
    systemd.end(first)
    with socket.create_connection(("127.0.0.1", port), timeout=10) as asking:
        second = systemd.daemon(ANY)
        assert port_of(second) == port, "also where any port would do"
        listening = worker(second, ANY)
        assert listening is not None
        answering, _ = listening.accept()
        answering.sendall(b"at last")
        answering.close()
        listening.close()
        assert asking.recv(100) == b"at last"
    assert systemd.told == ["FDSTORE"]


def test_it_listens_before_any_worker_and_after_each(systemd: Systemd) -> None:
    listener = systemd.daemon(ANY)
    assert not is_refused(port_of(listener))
    for _ in range(2):
        listening = worker(listener, ANY)
        assert listening is not None
        assert not listening.getblocking(), "another one may have taken who asked: nobody waits for the next"
        listening.close()
        assert not is_refused(port_of(listener))


def test_only_the_endpoint_has_it(systemd: Systemd) -> None:
    listener = systemd.daemon(ANY)
    listener_copy = Listener.__new__(Listener)
    listener_copy.__dict__ |= listener.__dict__
    assert listener._socket is not None
    listener_copy._socket = own = listener._socket.dup()
    assert listener_copy.claim(ANY, "download") is None
    assert own.fileno() == -1, "its copy is closed"
    assert not is_refused(port_of(listener))


def test_a_socket_of_another_address_is_given_up_for_one_of_ours(systemd: Systemd) -> None:
    first = systemd.daemon(ANY)
    port = port_of(first)
    systemd.end(first)
    with socket.create_server(("127.0.0.1", 0)) as free:
        other = free.getsockname()[1]
    second = systemd.daemon(on(other))
    assert port_of(second) == other
    assert systemd.told == ["FDSTORE", "FDSTOREREMOVE", "FDSTORE"]
    assert is_refused(port)


@pytest.mark.parametrize("kind", ["datagram", "unix", "connected", "memory", "pipe", "another host"])
def test_what_is_no_listener_of_ours_is_not_taken_over(systemd: Systemd, kind: str) -> None:
    server = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(server.getsockname())
    datagram = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    datagram.bind(("127.0.0.1", 0))
    unix = socket.socket(socket.AF_UNIX)
    abroad = socket.create_server(("127.0.0.2", 0))
    memory, (reader, writer) = os.memfd_create("garbage"), os.pipe()
    fds = {
        "datagram": datagram.fileno(),
        "unix": unix.fileno(),
        "connected": client.fileno(),
        "memory": memory,
        "pipe": reader,
        "another host": abroad.fileno(),
    }
    systemd.put(fds[kind])
    listener = systemd.daemon(ANY)
    assert systemd.told == ["FDSTOREREMOVE", "FDSTORE"]
    assert not is_refused(port_of(listener))
    for each in (server, client, datagram, unix, abroad):
        each.close()
    for fd in (memory, reader, writer):
        os.close(fd)


def test_a_port_that_is_taken_is_left_to_the_worker_to_tell(systemd: Systemd) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listener = systemd.daemon(on(taken.getsockname()[1]))
        assert worker(listener, on(taken.getsockname()[1])) is None
    assert systemd.told == []


@pytest.mark.parametrize("host", ["::1", "some.name.invalid"])
def test_a_host_that_is_no_address_of_this_kind_is_left_to_the_worker(systemd: Systemd, host: str) -> None:
    assert worker(systemd.daemon(on(0, host)), on(0, host)) is None
    assert systemd.told == []


def test_localhost_is_known_without_asking_anybody(systemd: Systemd) -> None:
    listener = systemd.daemon(on(0, "localhost"))
    assert not is_refused(port_of(listener))


def test_without_systemd_the_worker_listens_itself() -> None:
    assert Listener(Store({}), ANY).claim(ANY, "endpoint") is None


@pytest.mark.parametrize("runs", [True, False])
def test_a_daemon_without_an_endpoint_keeps_no_port_open(systemd: Systemd, runs: bool) -> None:
    first = systemd.daemon(ANY)
    port = port_of(first)
    systemd.end(first)
    systemd.daemon(without_endpoint(ANY) if runs else ANY, runs=runs)
    assert systemd.told == ["FDSTORE", "FDSTOREREMOVE"]
    assert is_refused(port)


def test_after_a_move_the_worker_has_the_new_address_and_the_old_one_is_refused(systemd: Systemd) -> None:
    listener = systemd.daemon(ANY)
    port = port_of(listener)
    moved = on(port, "0.0.0.0")
    assert worker(listener, moved) is None
    assert is_refused(port), "also before the reload is over"
    with socket.create_server(("0.0.0.0", port)) as own:
        assert not is_refused(own.getsockname()[1])
        listener.adopt(moved)
        systemd.follow()
        assert systemd.told == ["FDSTORE", "FDSTOREREMOVE"]
        assert worker(listener, moved) is None
    assert is_refused(port), "nobody else holds it"


def test_a_move_that_is_taken_back_is_as_before(systemd: Systemd) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    listener = systemd.daemon(on(port))
    assert worker(listener, on(port, "127.0.0.2")) is None
    assert is_refused(port)
    listening = worker(listener, on(port))
    assert listening is not None
    assert listening.getsockname() == ("127.0.0.1", port)
    listening.close()
    assert not is_refused(port)


def test_a_reload_that_does_not_concern_it_changes_nothing(systemd: Systemd) -> None:
    listener = systemd.daemon(ANY)
    listener.adopt(dataclasses.replace(ANY, domain="other"))
    systemd.follow()
    assert systemd.told == ["FDSTORE"]
    assert not is_refused(port_of(listener))
    listener.adopt(without_endpoint(ANY))
    systemd.follow()
    assert systemd.told == ["FDSTORE", "FDSTOREREMOVE"]


def test_an_endpoint_that_is_stopped_for_good_refuses_until_it_is_started_again(systemd: Systemd) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    listener = systemd.daemon(on(port))
    waiting = socket.create_connection(("127.0.0.1", port), timeout=10)
    listener.shut()
    listener.shut()
    with waiting, pytest.raises(ConnectionResetError):
        waiting.recv(1)
    assert is_refused(port)
    systemd.end(listener)
    again = systemd.daemon(on(port))
    assert not is_refused(port), "a daemon that starts starts its endpoint"
    assert systemd.told == ["FDSTORE"]
    again.shut()
    listening = worker(again, on(port))
    assert listening is not None
    listening.close()
    assert not is_refused(port)

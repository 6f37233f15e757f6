"""The HTTP endpoint, over real sockets, with shared counters as a supervisor would leave them."""

from __future__ import annotations

import dataclasses
import http.client
import json
import os
import socket
import threading
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from pipelined.config.tree import Config, Endpoint
from pipelined.errors import UnavailableError
from pipelined.stats import registry as metrics
from pipelined.stats.slots import SharedStats, WorkerState
from pipelined.workers import endpoint
from pipelined.workers.endpoint import serve
from waiting import until

CONFIG = Config(endpoint=Endpoint(port=0))


class Served:
    """An endpoint in a thread, and the slots it serves."""

    def __init__(self, listening: socket.socket | None = None) -> None:
        self.stats = SharedStats({"download": 1, "endpoint": 1})
        for slot in self.stats.slots:
            slot.child.begin(os.getpid())
            slot.child.ready()
            slot.parent.write(
                state=WorkerState.RUNNING, pid=os.getpid(), restarts=0, last_exit=0, since=1.0, next_try=0.0
            )
        self.child = self.stats.slot("endpoint", 0).child
        self.stop = threading.Event()
        self.thread = threading.Thread(
            target=serve, args=(CONFIG, self.stats, self.child, self.stop.is_set, listening), daemon=True
        )
        self.thread.start()
        until(lambda: self.child.published)

    def end(self) -> None:
        self.stop.set()
        self.thread.join(10)
        assert not self.thread.is_alive()

    def get(self, path: str, method: str = "GET", **headers: str) -> tuple[int, str, str]:
        """Status, content type and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.child.published, timeout=10)
        try:
            connection.request(method, path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.getheader("Content-Type") or "", answer.read().decode()
        finally:
            connection.close()


@pytest.fixture
def served() -> Iterator[Served]:
    made = Served()
    yield made
    made.end()


def test_metrics_are_what_the_slots_hold_now(served: Served) -> None:
    for count in (5, 6):
        served.stats.slot("download", 0).child.add(metrics.RECORDS_IN, 5 if count == 5 else 1)
        status, kind, body = served.get("/metrics")
        assert status == 200
        assert kind.startswith("text/plain; version=")
        samples = [s for family in text_string_to_metric_families(body) for s in family.samples]
        found = {(s.name, s.labels.get("worker")): s.value for s in samples}
        assert found["pipelined_records_in_total", "download"] == count
    _, kind, body = served.get("/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert kind.startswith("application/openmetrics-text")
    assert body.endswith("# EOF\n")


def test_a_daemon_that_works_is_alive_and_ready(served: Served) -> None:
    assert served.get("/livez") == served.get("/readyz?verbose") == (200, "text/plain; charset=utf-8", "ok\n")


def test_what_does_not_run_is_not_ready_and_yet_alive(served: Served) -> None:
    served.stats.slot("download", 0).parent.write(
        state=WorkerState.FATAL, pid=0, restarts=20, last_exit=78, since=1.0, next_try=0.0
    )
    status, _, body = served.get("/readyz")
    assert (status, body) == (503, "download[0]: FATAL\n")
    assert served.get("/livez")[0] == 200


def test_what_stands_still_is_not_alive(served: Served) -> None:
    child = served.stats.slot("download", 0).child
    child.set(metrics.LAG, 3)
    child.set(metrics.LAST_PROGRESS, 1000.0)
    status, _, body = served.get("/livez")
    assert status == 503
    assert body.startswith("download[0]: nothing committed for")


def test_the_status_is_one_json_document(served: Served) -> None:
    status, kind, body = served.get("/status")
    assert (status, kind) == (200, "application/json")
    assert "download" in json.dumps(json.loads(body))


@pytest.mark.parametrize("path", ["/", "/metricsx", "/../etc/passwd", "/favicon.ico"])
def test_anything_else_is_not_here_and_says_what_is(served: Served, path: str) -> None:
    status, _, body = served.get(path)
    assert status == 404
    assert "/metrics" in body
    assert "/readyz" in body


def test_nothing_can_be_changed_over_http(served: Served) -> None:
    assert {served.get("/status", method)[0] for method in ("POST", "PUT", "DELETE")} == {501}


def test_a_client_that_says_nothing_or_goes_away_keeps_nobody_from_an_answer(served: Served) -> None:
    silent = [socket.create_connection(("127.0.0.1", served.child.published)) for _ in range(20)]
    for one in silent[:10]:
        one.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        one.close()
    silent[10].sendall(b"\x16\x03\x01 no HTTP\r\n\r\n")
    assert served.get("/livez")[0] == 200
    for one in silent[10:]:
        one.close()


def test_the_loop_of_the_endpoint_gives_signs_of_life(served: Served) -> None:
    before = served.child.heartbeat_ns
    until(lambda: served.child.heartbeat_ns > before)


def test_a_port_that_is_taken_is_said_with_what_to_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config = dataclasses.replace(CONFIG, endpoint=Endpoint(port=port))
        stats = SharedStats({"endpoint": 1})
        with pytest.raises(UnavailableError, match=rf"127\.0\.0\.1:{port}.*endpoint\.port"):
            serve(config, stats, stats.slot("endpoint", 0).child, lambda: True)
        assert not stats.slot("endpoint", 0).child.is_ready


def test_a_socket_that_is_handed_in_is_used_and_outlives_the_worker() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listening:
        listening.setblocking(False)
        for _ in range(2):
            with socket.create_connection(listening.getsockname(), timeout=30) as asking:
                asking.sendall(b"GET /livez HTTP/1.0\r\n\r\n")
                served = Served(listening.dup())
                assert served.child.published == listening.getsockname()[1]
                assert asking.recv(100).startswith(b"HTTP/1.1 200"), "who asked before is answered"
                served.end()


def test_who_was_let_in_is_answered_also_when_the_worker_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, go_on = threading.Event(), threading.Event()

    def slow(*_: object) -> list[str]:
        asked.set()
        go_on.wait(30)
        return []

    monkeypatch.setattr(endpoint, "alive", slow)
    monkeypatch.setattr(endpoint, "_LAST_ANSWERS_S", 60.0)
    served = Served()
    with socket.create_connection(("127.0.0.1", served.child.published), timeout=30) as asking:
        asking.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        assert asked.wait(30)
        served.stop.set()
        threading.Timer(0.5, go_on.set).start()
        served.thread.join(30)
        assert go_on.is_set(), "it waited for the answer"
        assert not served.thread.is_alive(), "and not for the next request on the same connection"
        assert asking.recv(100).startswith(b"HTTP/1.1 200")


def test_a_host_that_is_none_of_ours_is_said_too() -> None:
    config = dataclasses.replace(CONFIG, endpoint=Endpoint(host="192.0.2.1", port=0))
    stats = SharedStats({"endpoint": 1})
    with pytest.raises(UnavailableError, match=r"192\.0\.2\.1"):
        serve(config, stats, stats.slot("endpoint", 0).child, lambda: True)

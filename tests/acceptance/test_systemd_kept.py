"""What systemd keeps while the service restarts: the counters, and the port of the endpoint."""

from __future__ import annotations

import http.client
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest
from service_host import Installation

from flow import Flow
from machine import Machine
from pipelined.local.fileserver import FileServer
from waiting import until

pytestmark = [pytest.mark.xdist_group("systemd"), pytest.mark.timeout(300)]


@pytest.fixture
def service(machine: Machine, tmp_path: Path, kafka_bootstrap: str, domain: str) -> Iterator[Installation]:
    """Installed, with its topics, and started."""
    with FileServer() as files, Flow(tmp_path, kafka_bootstrap, domain, files.url) as flow:
        flow.apply_topics()
        made = Installation(machine, flow)
        made.install()
        made.systemctl("start")
        yield made
        made.remove()


class Scraping:
    """A Prometheus that asks again and again, and what came of it."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.answered = self.refused = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(150)

    def counters(self) -> dict[str, float]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=120) as answer:
            lines = answer.read().decode().splitlines()
        series = (line.rpartition(" ") for line in lines if line[0] != "#")
        return {name: float(value) for name, _, value in series if "_total" in name or "_bucket" in name}

    def until_answered(self) -> None:
        """Wait for an answer to a request that is made from now on, or is waiting."""
        answered = self.answered
        until(lambda: self.answered > answered, "it is answered")

    def _run(self) -> None:
        while not self._stop.wait(0.1):
            try:
                self.counters()
                self.answered += 1
            except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
                # An answer may be cut off by a kill; that nobody listens must not happen.
                self.refused += isinstance(getattr(error, "reason", error), ConnectionRefusedError)


def test_counters_go_on_and_no_scrape_is_refused_over_restarts_and_kills(service: Installation) -> None:
    lines = len(service.machine.journal("-u", "pipelined"))
    service.load(service.flow.day(30, seed=8).lines())
    assert service.balance()["balanced"]
    read = 'pipelined_records_in_total{index="0",worker="event-ingester"}'
    starts = 'pipelined_worker_starts_total{index="0",worker="event-ingester"}'
    with Scraping(service.workers()["endpoint/0"]["published"]) as scraping:
        assert scraping.counters()[read] == 30
        for number, end in enumerate(("restart", "KILL", "ABRT"), 2):
            before, parent = scraping.counters(), service.main_pid()
            if end == "restart":
                service.systemctl("restart")
            else:
                service.kill(end, parent)
            until(lambda old=parent: service.main_pid() not in {0, old}, f"there is another after {end}")
            service.until(ActiveState="active", SubState="running")
            after = scraping.counters()
            assert after[read] == 30
            assert after[starts] == number
            assert {name for name, value in before.items() if after[name] < value} == set()
            assert service.show("NFileDescriptorStore") == "2"
            workers = service.workers()
            assert workers["endpoint/0"]["published"] == scraping.port
            assert workers["event-ingester/0"]["last_exit"] is None, "it is the first of this daemon"
        scraping.until_answered()
        assert scraping.refused == 0
        service.configure({"supervisor.max_processes": 7})
        service.systemctl("restart")
        assert scraping.counters()[read] == 0, "there is no room for the same in the old memory"
    assert scraping.refused == 0
    said = [str(line["MESSAGE"]) for line in service.machine.journal("-u", "pipelined")][lines:]
    assert said.count("the counters of the daemon before go on") == 3
    assert len([line for line in said if line.startswith("the counters begin at zero")]) == 1
    assert len([line for line in said if "goes on listening on 127.0.0.1" in line]) == 4
    assert service.show("NFileDescriptorStore") == "2", "the new memory instead of the old one"
    service.systemctl("stop")
    assert service.show("NFileDescriptorStore") == "0"
    with pytest.raises(urllib.error.URLError, match="refused"):
        scraping.counters()


def test_the_port_of_the_endpoint_is_open_over_a_crash_and_closed_after_a_stop_or_a_move(
    service: Installation,
) -> None:
    with Scraping(service.workers()["endpoint/0"]["published"]) as scraping:
        for _ in range(2):
            victim = service.workers()["endpoint/0"]["pid"]
            service.kill("KILL", victim)
            until(lambda old=victim: service.workers()["endpoint/0"]["pid"] not in {old, None}, "it is back")
            scraping.until_answered()
        assert service.workers()["endpoint/0"]["published"] == scraping.port
    assert scraping.refused == 0
    service.ctl("stop", "endpoint")
    with pytest.raises(urllib.error.URLError, match="refused"):
        scraping.counters()
    service.ctl("start", "endpoint")
    until(lambda: service.workers()["endpoint/0"]["published"], "it listens again")
    assert service.show("NFileDescriptorStore") == "2", "systemd did not lose its socket meanwhile"
    old = service.workers()["endpoint/0"]["published"]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    service.configure({"endpoint.port": port})
    service.systemctl("reload")
    assert service.workers()["endpoint/0"]["published"] == port
    assert Scraping(port).counters()
    with pytest.raises(urllib.error.URLError, match="refused"):
        Scraping(old).counters()
    until(lambda: service.show("NFileDescriptorStore") == "1", "the counters alone are kept")

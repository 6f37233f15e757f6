"""The journal of a booted systemd: records of a real daemon are found by their fields, and by pipelinectl."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from service_host import CTL, Installation

from flow import Flow, event, trace_ids
from machine import Machine
from pipelined.local.fileserver import FileServer, file_path
from waiting import until

pytestmark = pytest.mark.xdist_group("systemd")

SETTINGS = {"workers.download.stuck_s": 1.0, "download.low_speed_s": 30.0}


@pytest.fixture
def service(machine: Machine, tmp_path: Path, kafka_bootstrap: str, domain: str) -> Iterator[Installation]:
    """Installed, with its topics; not started."""
    with FileServer() as files, Flow(tmp_path, kafka_bootstrap, domain, files.url) as flow:
        flow.apply_topics()
        made = Installation(machine, flow)
        made.configure(SETTINGS)
        made.install()
        yield made
        made.remove()


def read(service: Installation, *arguments: str) -> list[dict[str, str]]:
    """What ``pipelinectl logs`` prints as JSON."""
    done = service.machine.run(CTL, "--config", service.file, "logs", "--json", *arguments)
    assert done.stderr == "from the journal of pipelined\n"
    return [json.loads(line) for line in done.stdout.splitlines()]


def of_ours(service: Installation, event_code: str) -> list[dict[str, str]]:
    """The records of an event, of this very installation."""
    ours = f"{service.flow.domain}.here."
    found = service.machine.journal(f"LOG_EVENT={event_code}")
    return [each for each in found if each["INSTANCE"].startswith(ours)]


def test_the_records_of_a_daemon_are_found_by_their_fields(service: Installation) -> None:
    machine, domain = service.machine, service.flow.domain
    service.systemctl("start")
    (trace,) = trace_ids(1)
    url = service.flow.files_url + file_path("stall-1", 20_000, 0, "GENERIC.pdf")
    service.load([event(trace, [url])])
    found = until(lambda: machine.journal(f"TRACE_ID={trace}", "LOG_EVENT=record.stuck"), "it is put off", 60)
    record = found[0]
    assert record["MESSAGE"].startswith(f"{domain}.downloads.pending/")
    assert {
        name: record[name] for name in ("PRIORITY", "WORKER", "INDEX", "STAGE", "ERROR_CODE", "LEVEL")
    } == {
        "PRIORITY": "4",
        "WORKER": "download",
        "INDEX": "0",
        "STAGE": "download",
        "ERROR_CODE": "stuck",
        "LEVEL": "WARNING",
    }
    assert record["INSTANCE"] == f"{domain}.here.download.0"
    assert record["TOPIC"] == f"{domain}.downloads.pending"
    assert record["PARTITION"].isdigit()
    assert record["OFFSET"] == "0"
    assert (record["_SYSTEMD_UNIT"], record["_TRANSPORT"]) == ("pipelined.service", "journal")
    assert record["CODE_FILE"].endswith("pipelined/workers/runtime.py")

    told = read(service, "--trace", trace)
    assert [each["event"] for each in told][:1] == ["record.stuck"]
    assert {each["worker"] for each in read(service, "upload")} == {"upload", "supervisor"}
    assert read(service, "--level", "error") == []
    assert read(service, "--lines", "1", "supervisor")[0]["worker"] == "supervisor"
    shown = service.ctl("logs", "download", "--since", "1h")
    assert (
        f"WARNING [download-0 {service.workers()['download/0']['pid']}] {domain}.downloads.pending/" in shown
    )


def test_the_last_words_of_a_process_belong_to_the_unit_and_a_crash_tells_its_reason(
    service: Installation,
) -> None:
    machine = service.machine
    service.systemctl("start")
    machine.run("journalctl", "--rotate", check=False)
    service.systemctl("stop")
    for event_code in ("daemon.starts", "daemon.started", "daemon.stops", "daemon.ended"):
        (told,) = of_ours(service, event_code)
        assert told["_SYSTEMD_UNIT"] == "pipelined.service", event_code
    drained = of_ours(service, "worker.drained")
    assert {each["WORKER"] for each in drained} == {"event-ingester", "download", "upload", "retry-scheduler"}
    assert len(drained) == 4
    assert {each["_SYSTEMD_UNIT"] for each in drained} == {"pipelined.service"}

    service.systemctl("start")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        service.configure({"endpoint.port": taken.getsockname()[1]})
        service.systemctl("reload", check=False)
    (ended,) = of_ours(service, "worker.ended")[:1]
    assert (ended["_SYSTEMD_UNIT"], ended["WORKER"], ended["PRIORITY"]) == (
        "pipelined.service",
        "endpoint",
        "2",
    )
    assert "cannot" in str(ended["MESSAGE"])


#: Asks the endpoint so often, and prints the longest time that an answer took.
_REQUESTS = """
import sys, time, urllib.request
slowest = 0
for _ in range(int(sys.argv[2])):
    began = time.monotonic()
    urllib.request.urlopen(sys.argv[1], timeout=20).read()
    slowest = max(slowest, time.monotonic() - began)
print(slowest)
"""


def test_a_journald_that_stands_still_holds_up_nobody_and_what_is_lost_is_told(service: Installation) -> None:
    machine = service.machine
    service.systemctl("start")
    service.ctl("log-level", "debug")
    url = f"http://127.0.0.1:{service.workers()['endpoint/0']['published']}/livez"
    journald = machine.show("systemd-journald", "MainPID")["MainPID"]
    machine.run("kill", "-STOP", journald)
    try:
        asked = machine.run("python3", "-c", _REQUESTS, url, "1500")
        assert float(asked.stdout) < 5, "one line waits for a tenth of a second, once"
        service.load(service.flow.day(100, seed=19).lines())
        assert service.balance()["balanced"]
    finally:
        machine.run("kill", "-CONT", journald)

    def told() -> bool:
        machine.run("python3", "-c", _REQUESTS, url, "1")
        return any(each["WORKER"] == "endpoint" for each in of_ours(service, "log.dropped"))

    until(told, "what was lost is told")


def test_a_running_daemon_is_made_to_log_more_and_a_worker_that_restarts_keeps_it(
    service: Installation,
) -> None:
    machine = service.machine
    service.systemctl("start")
    # The journal is that of all tests on this machine: what this run of the daemon tells is asked for.
    ours = f"_SYSTEMD_INVOCATION_ID={service.show('InvocationID')}"

    def requests() -> list[dict[str, Any]]:
        return machine.journal(ours, "LOG_EVENT=endpoint.request")

    assert machine.journal(ours, "PRIORITY=6", "WORKER=endpoint") != []
    assert machine.journal(ours, "PRIORITY=7", "WORKER=endpoint") == []
    assert "endpoint logs from DEBUG on" in service.ctl("log-level", "debug", "endpoint")
    assert service.workers()["endpoint/0"]["log_level"] == "DEBUG"

    def asks() -> bool:
        port = service.workers()["endpoint/0"]["published"]
        machine.run(
            "python3", "-c", f"import urllib.request as u; u.urlopen('http://127.0.0.1:{port}/livez')"
        )
        return bool(requests())

    until(asks, "the endpoint tells of requests")
    before = service.workers()["endpoint/0"]["pid"]
    service.kill("KILL", before)
    until(lambda: service.workers()["endpoint/0"]["pid"] not in {before, None}, "it is restarted")
    until(lambda: service.workers()["endpoint/0"]["ready"], "it is ready")
    asked = len(requests())
    until(lambda: asks() and len(requests()) > asked, "it still tells")
    service.ctl("log-level", "default")
    assert {each["log_level"] for each in service.workers().values()} == {"INFO"}

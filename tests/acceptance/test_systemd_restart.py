"""``pipelinectl restart`` of the service: one job of systemd, and an unharmed daemon where that cannot be."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from service_host import CTL, Installation

from flow import Flow
from machine import Machine
from pipelined.local.fileserver import FileServer
from waiting import until

pytestmark = pytest.mark.xdist_group("systemd")


@pytest.fixture
def service(machine: Machine, tmp_path: Path, kafka_bootstrap: str, domain: str) -> Iterator[Installation]:
    """Installed, with its topics; not started."""
    with FileServer() as files, Flow(tmp_path, kafka_bootstrap, domain, files.url) as flow:
        flow.apply_topics()
        made = Installation(machine, flow)
        made.install()
        yield made
        made.remove()


def jobs(service: Installation, cursor: str) -> list[str]:
    """What systemd did for the service since, by the kind of its jobs."""
    lines = service.machine.journal("UNIT=pipelined.service", f"--after-cursor={cursor}")
    return [line["JOB_TYPE"] for line in lines if "JOB_RESULT" in line]


def test_restart_is_one_job_of_systemd_and_comes_back_when_it_is_ready(service: Installation) -> None:
    service.ctl("start")
    first = service.main_pid()
    (last,) = service.machine.journal("-u", "pipelined", "-n1")
    assert "the service pipelined is up: running: " in service.ctl("restart")
    assert service.show("ActiveState") == "active"
    assert service.main_pid() != first
    until(lambda: "restart" in jobs(service, last["__CURSOR"]), "it was not a stop and a start")

    second = service.main_pid()
    service.ctl("--set", "download.concurrency=33", "restart", code=64)
    good = service.machine.path(service.file).read_text()
    service.machine.write(service.file, f"nonsense = 1\n{good}")
    assert "nonsense" in service.ctl("restart", code=78)
    service.machine.write(service.file, good)
    member = [
        "setpriv",
        "--reuid=nobody",
        "--regid=pipelined",
        "--clear-groups",
        CTL,
        "--config",
        service.file,
    ]
    refused = service.machine.run(*member, "restart", check=False)
    assert refused.returncode != 0
    assert "which goes on as it was" in refused.stderr, "only root may restart it"
    assert service.main_pid() == second
    service.ctl("stop")
    assert "the service pipelined is up: running: " in service.ctl("restart"), "none ran: it is started"


def test_restart_has_the_exit_code_of_a_daemon_that_does_not_start(service: Installation) -> None:
    service.ctl("start")
    service.drop_in("[Service]\nRestart=no\nExecStart=\nExecStart=/bin/sh -c 'exit 78'\n")
    assert "does not start; its log: journalctl -u pipelined" in service.ctl("restart", code=78)


def test_a_daemon_that_somebody_started_beside_the_service_makes_room_for_it(service: Installation) -> None:
    daemon = ["/opt/pipelined/bin/pipelined", "--config", service.file, "run"]
    folder = ["-pRuntimeDirectory=pipelined", "-pRuntimeDirectoryPreserve=yes"]
    service.machine.run("systemd-run", "--uid=pipelined", "--gid=pipelined", *folder, *daemon)
    service.ctl("status", "--wait-for", "RUNNING", "--timeout", "60s")
    said = service.ctl("restart")
    assert "is not that of the service pipelined: it is stopped" in said
    assert service.show("ActiveState") == "active"
    assert service.status()["pid"] == service.main_pid()

"""A service's life by the commands of the README and the how-to pages: one test, from install to uninstall.

``make test JOBS=0 ARGS="tests/acceptance/test_journey.py -s"`` shows what each command prints.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from service_host import CTL, Installation, put

from distribution import build
from flow import Flow
from machine import Machine
from pipelined.local.fileserver import FileServer
from waiting import until

pytestmark = pytest.mark.xdist_group("systemd")


@pytest.fixture
def service(machine: Machine, tmp_path: Path, kafka_bootstrap: str, domain: str) -> Iterator[Installation]:
    """A configuration and a cluster without topics; neither installed nor started."""
    with FileServer() as files, Flow(tmp_path, kafka_bootstrap, domain, files.url) as flow:
        made = Installation(machine, flow)
        yield made
        made.remove()


class Operator:
    """Who types the commands, and reads what they print."""

    def __init__(self, service: Installation) -> None:
        self._service = service

    def types(self, line: str, code: int = 0) -> str:
        """A command of the how-to; it has to end with this code. What it printed, on both streams."""
        program, *arguments = line.split()
        words = (
            [CTL, "--config", self._service.file, *arguments] if program == "pipelinectl" else line.split()
        )
        done = self._service.machine.run(*words, check=False)
        shown = done.stdout + done.stderr
        print(f"\n$ {line}\n{shown}", end="")
        assert done.returncode == code, f"{line}: {done.returncode}\n{shown}\n{self._service.machine.tail()}"
        return shown


def test_a_service_from_install_to_uninstall_and_the_ledger_balances_across_all_of_it(
    service: Installation, tmp_path: Path
) -> None:
    operator = Operator(service)
    types = operator.types
    day = list(service.flow.day(400, seed=20261124).lines())
    service.configure({"workers.event_writer.hang_s": 15.0})

    # Install, start, look.
    types("pipelinectl config check")
    types("pipelinectl topics apply")
    types("pipelinectl service install --dry-run")
    types("pipelinectl service install")
    types("systemctl enable --now pipelined")
    shown = types("systemctl status --no-pager pipelined")
    assert "running: 8 workers" in shown
    assert "pipelined: event-writer/0" in shown, "each process is told from the others"
    assert " is running" in types("pipelinectl status")
    types("pipelinectl doctor")
    service.load(day[:100])

    # Break two workers: one is killed, one stands still.
    service.kill("STOP", service.workers()["event-writer/0"]["pid"])
    service.kill("KILL", service.workers()["download/0"]["pid"])
    until(lambda: service.workers()["download/0"]["restarts"] == 1, "it is restarted")
    assert "killed by SIGKILL" in types("pipelinectl events download")
    service.until_status(lambda line: "1 silent (event-writer/0: no sign for" in line, "that is told")
    types("systemctl status --no-pager pipelined")
    assert "event-writer/0 gives no sign of its work loop" in types("pipelinectl status")
    until(lambda: service.workers()["event-writer/0"]["restarts"] == 1, "it is found, and restarted", 60)
    assert "hung: no sign of its work loop" in types("pipelinectl events event-writer")
    types("pipelinectl status --wait-for RUNNING --timeout 90s")
    assert "Fatal Python error: Aborted" in types("journalctl -u pipelined --no-pager --lines=200")
    service.load(day[100:200])

    # A bad configuration, and a good one.
    good = service.machine.path(service.file).read_text()
    service.machine.write(service.file, f"[nonsense\n{good}")
    assert "line 1" in types("pipelinectl config check", code=78)
    types("systemctl reload pipelined", code=1)
    assert "line 1" in types("pipelinectl reload", code=78)
    types("pipelinectl status")
    before = service.workers()
    service.configure({"download.low_speed_s": 3.0})
    types("pipelinectl config check")
    assert "a reload restarts download" in types("pipelinectl config diff", code=1)
    assert "download/0 is renewed" in types("pipelinectl reload")
    after = service.workers()
    assert {name for name in before if before[name]["pid"] != after[name]["pid"]} == {"download/0"}

    # Upgrade, under load.
    put(service.machine, build(tmp_path / "next", "99.1.0").wheel)
    service.load(day[200:300])
    types("pipelinectl restart")
    assert "99.1.0" in types("pipelinectl version")
    assert service.version() == "99.1.0"
    service.load(day[300:])

    # Stop, and hold what went in against what came out.
    types("pipelinectl status --wait-for RUNNING --timeout 90s")
    assert "balanced" in types("pipelinectl ledger --wait 90")
    types("systemctl stop pipelined")
    assert service.show("Result") == "success"
    types("pipelinectl status", code=69)
    types("pipelinectl events --lines 5")
    types("pipelinectl service uninstall")
    assert "could not be found" in types("systemctl status --no-pager pipelined", code=4)
    assert "balanced" in types("pipelinectl ledger")

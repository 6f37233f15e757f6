"""The service on a booted systemd: the commands of the how-to, and what must never happen to it."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from service_host import CTL, Installation, put

from distribution import build
from flow import Flow
from machine import Machine
from pipelined import __version__
from pipelined.local.fileserver import FileServer
from waiting import until

pytestmark = pytest.mark.xdist_group("systemd")


@pytest.fixture
def service(machine: Machine, tmp_path: Path, kafka_bootstrap: str, domain: str) -> Iterator[Installation]:
    """Configured, with its topics; neither installed nor started."""
    with FileServer() as files, Flow(tmp_path, kafka_bootstrap, domain, files.url) as flow:
        flow.apply_topics()
        made = Installation(machine, flow)
        yield made
        made.remove()


def test_from_install_to_uninstall_with_kills_and_the_books_balance(service: Installation) -> None:
    machine = service.machine
    service.install()
    assert "as it is to be" in service.ctl("service", "show")
    service.systemctl("start")
    assert service.show("ActiveState") == "active", "start came back when it was ready"
    service.until_status(lambda line: line.startswith("running: "), "it says that it runs")
    assert machine.run("systemctl", "status", "pipelined").stdout.count("running: ") == 1

    loaded = service.load(service.flow.day(300, seed=6).lines())
    victim = service.workers()["download/0"]["pid"]
    service.kill("KILL", victim)
    until(lambda: service.workers()["download/0"]["pid"] not in {victim, None}, "it is restarted")
    parent = service.main_pid()
    before = set(
        machine.path("/sys/fs/cgroup/system.slice/pipelined.service/cgroup.procs").read_text().split()
    )
    service.kill("KILL", parent)
    until(lambda: service.main_pid() not in {0, parent}, "systemd restarts it")
    service.until(ActiveState="active", SubState="running")
    assert service.show("NRestarts") == "1"
    now = set(machine.path("/sys/fs/cgroup/system.slice/pipelined.service/cgroup.procs").read_text().split())
    assert len(before) > 8
    assert not before & now, "no worker outlives its parent"

    balance = service.balance()
    assert balance["balanced"]
    assert loaded == 300
    service.systemctl("stop")
    assert service.show("Result") == "success"
    assert service.balance()["balanced"]
    told = [str(line["MESSAGE"]) for line in machine.journal("UNIT=pipelined.service")]
    assert not [line for line in told if "reception only permitted" in line], "no child speaks to systemd"
    service.ctl("service", "uninstall")
    assert not machine.path("/etc/systemd/system/pipelined.service").exists()
    assert machine.path("/srv/claims/tables").is_dir(), "the data stay"
    assert "nothing to uninstall" in service.ctl("service", "uninstall", code=64)


def test_an_upgrade_drains_the_old_version_and_loses_nothing(service: Installation, tmp_path: Path) -> None:
    service.install()
    service.systemctl("start")
    assert service.version() == __version__
    day = list(service.flow.day(300, seed=7).lines())
    service.load(day[:200])
    put(service.machine, build(tmp_path / "next", "99.1.0").wheel)
    service.systemctl("restart")
    assert service.version() == "99.1.0"
    service.load(day[200:])
    assert service.balance()["balanced"]
    ended = service.machine.journal("-u", "pipelined", "--grep=the supervisor ends with exit code")
    assert "exit code 0" in str(ended[-1]["MESSAGE"]), "the old one drained"


def test_it_runs_as_hardened_as_it_is_shipped(service: Installation) -> None:
    service.install()
    service.systemctl("start")
    machine = service.machine
    machine.run("systemd-analyze", "security", "--no-pager", "--threshold=15", "pipelined.service")
    status = machine.run("cat", f"/proc/{service.main_pid()}/status").stdout
    fields = dict(line.split(":", 1) for line in status.splitlines())
    assert int(fields["CapEff"], 16) == 0
    assert fields["NoNewPrivs"].strip() == "1"
    assert fields["Seccomp"].strip() == "2"
    user = machine.run("id", "-u", "pipelined").stdout.strip()
    assert fields["Uid"].split() == [user] * 4
    for folder in ("/var/lib/pipelined", "/run/pipelined", "/var/cache/pipelined", "/var/log/pipelined"):
        assert machine.run("stat", "-c", "%U %G %a", folder).stdout.strip() == "pipelined pipelined 750"


def test_each_line_of_the_journal_has_its_priority_and_its_worker(service: Installation) -> None:
    service.install()
    service.systemctl("start")
    service.kill("KILL", service.workers()["upload/0"]["pid"])
    machine = service.machine
    invocation = f"_SYSTEMD_INVOCATION_ID={service.show('InvocationID')}"

    def warnings() -> list[str]:
        lines = machine.journal(invocation, "PRIORITY=4")
        return [line["MESSAGE"] for line in lines if "upload/0" in line["MESSAGE"]]

    until(warnings, "the journal has the warning")
    assert "killed by SIGKILL" in warnings()[0]
    assert machine.journal(invocation, "PRIORITY=6", f"_PID={service.main_pid()}")
    service.kill("USR1", service.main_pid())
    service.kill("QUIT", service.main_pid())

    def told() -> str:
        return "\n".join(str(line["MESSAGE"]) for line in machine.journal(invocation))

    until(lambda: "the supervisor wrote its stacks, and goes on" in told(), "it says so, and goes on")
    assert re.search(r'loop\.py", line \d+ in run$', told(), re.MULTILINE), "and they are there"
    assert machine.journal(invocation, "PRIORITY=2") == []


def test_a_wrong_configuration_is_told_and_not_tried_again(service: Installation) -> None:
    service.install()
    service.machine.write(service.file, "kafka.bootstrapp = 'a:1'\n")
    assert service.systemctl("start", check=False).returncode != 0
    assert service.show("ExecMainStatus") == "78"
    assert service.show("ActiveState") == "failed"
    time.sleep(1.5)  # longer than RestartSec
    assert service.show("NRestarts") == "0"
    lines = service.machine.journal("-u", "pipelined")
    assert any("kafka.bootstrapp" in str(line["MESSAGE"]) for line in lines)


def test_a_daemon_that_is_killed_again_and_again_stays_down_in_the_end(service: Installation) -> None:
    service.install()
    service.drop_in("[Unit]\nStartLimitBurst=2\n[Service]\nRestartSec=100ms\n")
    service.systemctl("start")
    first = service.main_pid()
    service.kill("KILL", first)
    until(lambda: service.main_pid() not in {0, first}, "the second start")
    service.kill("KILL", service.main_pid())
    service.until(ActiveState="failed")
    assert any(
        "Start request repeated too quickly" in str(line["MESSAGE"])
        for line in service.machine.journal("UNIT=pipelined.service")
    )
    service.systemctl("reset-failed")
    service.systemctl("start")
    assert service.show("ActiveState") == "active"


def test_a_parent_that_stands_still_is_ended_by_the_watchdog_and_started_again(service: Installation) -> None:
    service.install()
    service.drop_in("[Service]\nWatchdogSec=3\nRestartSec=100ms\n")
    service.systemctl("start")
    hung = service.main_pid()
    service.kill("STOP", hung)
    until(lambda: service.main_pid() not in {0, hung}, "systemd restarts it")
    service.until(ActiveState="active", SubState="running")
    said = [str(line["MESSAGE"]) for line in service.machine.journal("-b")]
    assert any("Watchdog timeout" in line for line in said)
    assert any("Fatal Python error: Aborted" in line for line in said), "its stacks are in the journal"
    assert any("in run" in line and "loop.py" in line for line in said)
    alive = service.machine.journal("-u", "pipelined", "--grep=is RUNNING", f"_PID={service.main_pid()}")
    until(lambda: alive or service.workers(), "its workers run again")


def test_a_reload_restarts_what_it_concerns_and_refuses_what_is_wrong(service: Installation) -> None:
    service.install()
    service.systemctl("start")
    before = {name: worker["pid"] for name, worker in service.workers().items()}
    service.configure({"download.low_speed_s": 3.0})
    service.systemctl("reload")
    after = {name: worker["pid"] for name, worker in service.workers().items()}
    assert {name for name in before if before[name] != after[name]} == {"download/0"}
    service.until_status(lambda line: line.startswith("running: "), "the reload is over")

    good = service.machine.path(service.file).read_text()
    service.machine.write(service.file, f"nonsense = 1\n{good}")
    refused = service.systemctl("reload", check=False)
    assert refused.returncode != 0
    lines = service.machine.journal("-u", "pipelined", "-b")
    assert any("nonsense" in str(line["MESSAGE"]) for line in lines), "the journal has the reason"
    assert service.show("ActiveState") == "active"
    service.machine.write(service.file, good)
    assert {name: worker["pid"] for name, worker in service.workers().items()} == after


def test_a_drain_may_take_longer_than_the_time_limit_for_a_stop(service: Installation) -> None:
    service.install()
    service.drop_in("[Service]\nTimeoutStopSec=2\n")
    service.configure({"download.low_speed_s": 6.0})
    service.systemctl("start")
    service.load_attachments("stall-1", 3)
    until(lambda: service.workers()["download/0"]["in_flight"] == 3, "all are being fetched, and stall")
    begun = time.monotonic()
    service.systemctl("stop")
    assert time.monotonic() - begun > 2.5, "the files are waited for, until they count as stalled"
    assert service.show("Result") == "success"
    service.systemctl("start")
    assert service.balance()["balanced"]


def test_start_and_stop_of_pipelinectl_are_those_of_the_service(service: Installation) -> None:
    service.install()
    assert "the service pipelined is up: running: " in service.ctl("start")
    assert service.show("ActiveState") == "active"
    assert service.show("MainPID") in service.ctl("start", code=73), "it runs already"
    service.ctl("stop")
    service.until(ActiveState="inactive", Result="success", NRestarts="0")
    service.drop_in("[Service]\nRestart=no\nExecStartPre=/bin/false\n")
    assert "does not start; its log: journalctl -u pipelined" in service.ctl("start", code=1)


def test_a_second_instance_runs_beside_the_first(service: Installation, tmp_path: Path) -> None:
    service.install()
    service.systemctl("start")
    (tmp_path / "orders").mkdir()
    with Flow(tmp_path / "orders", service.flow.config.kafka.bootstrap, "", service.flow.files_url) as flow:
        flow.configure({"domain": f"{service.flow.domain}-orders"})
        flow.apply_topics()
        other = Installation(service.machine, flow, "orders")
        refused = other.ctl("service", "install", "--instance", "orders", code=64)
        assert 'state_dir = "/var/lib/pipelined-orders"' in refused
        other.configure(
            {
                "state_dir": "/var/lib/pipelined-orders",
                "cache_dir": "/var/lib/pipelined-orders/cache",
                "runtime_dir": "/run/pipelined-orders",
                "upload.url": "file:///srv/orders/files",
                "tables.url": "file:///srv/orders/tables",
            }
        )
        other.install()
        other.systemctl("start")
        assert other.workers()["upload/0"]["pid"] != service.workers()["upload/0"]["pid"]
        other.remove()
        assert service.show("ActiveState") == "active"
        assert service.machine.path("/run/pipelined/control.sock").exists()
        assert not service.machine.path("/etc/systemd/system/pipelined@.service").exists()
        assert service.machine.path("/etc/sysusers.d/pipelined.conf").exists(), "the other one needs it"


def test_a_secret_comes_as_a_credential_that_no_other_user_can_read(service: Installation) -> None:
    where = "/run/credentials/pipelined.service/pipelined_kafka-password"
    service.install()
    service.configure({"kafka.sasl_password": f"file:{where}"})
    secret = service.machine.path("/etc/pipelined/credentials/kafka-password")
    secret.write_text("sesame\n")
    secret.chmod(0o400)
    service.systemctl("start")
    assert service.show("ActiveState") == "active"
    reading = ["cat", where]
    assert (
        service.machine.run("setpriv", "--reuid=pipelined", "--clear-groups", *reading).stdout == "sesame\n"
    )
    refused = service.machine.run("setpriv", "--reuid=nobody", "--clear-groups", *reading, check=False)
    assert "Permission denied" in refused.stderr


def test_what_the_user_of_the_service_could_not_do_is_told_at_once(service: Installation) -> None:
    machine = service.machine
    machine.run("chmod", "700", "/opt/pipelined")
    try:
        said = service.ctl("service", "install", code=69)
    finally:
        machine.run("chmod", "755", "/opt/pipelined")
    assert "the user pipelined cannot run /opt/pipelined/bin/pipelined" in said
    machine.run("chmod", "600", service.file)
    assert f"the user pipelined cannot read {service.file}" in service.ctl("service", "install", code=69)
    machine.run("chmod", "644", service.file)
    machine.run("mkdir", "-p", "/srv/claims/files")
    machine.run("chown", "root:", "/srv/claims/files")
    assert "the user pipelined cannot write to /srv/claims/files" in service.ctl(
        "service", "install", code=69
    )


def test_only_root_installs_and_a_file_of_somebody_else_is_not_replaced(service: Installation) -> None:
    nobody = ["setpriv", "--reuid=nobody", "--clear-groups", CTL, "--config", service.file]
    refused = service.machine.run(*nobody, "service", "install", check=False)
    assert (refused.returncode, refused.stderr.strip()[:50]) == (
        69,
        "error: only root can install a service: call it wi",
    )
    service.machine.write("/etc/systemd/system/pipelined.service", "[Service]\nExecStart=/bin/true\n")
    assert "was not written by this command" in service.ctl("service", "install", code=64)
    assert "was not written by this command" in service.ctl("service", "uninstall", code=64)
    service.machine.path("/etc/systemd/system/pipelined.service").unlink()

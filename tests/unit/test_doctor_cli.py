"""``pipelinectl doctor``: its lines, its exit codes, and what it says of the service and the daemon."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pipelined import __version__
from pipelined.cli import doctor as command
from pipelined.cli.settings import Settings
from pipelined.doctor.checks import CHECKS
from pipelined.doctor.finding import Outcome
from pipelined.supervisor import pidfile
from pipelined.supervisor.pidfile import Pidfile


def ctl(tmp_path: Path, *arguments: str, text: str = "") -> Result:
    file = tmp_path / "pipelined.toml"
    folders = (f'{key} = "{tmp_path}/{key}"' for key in ("state_dir", "cache_dir", "runtime_dir"))
    file.write_text("\n".join(folders) + f"\n{text}\n")
    result = CliRunner().invoke(command.doctor, arguments, obj=Settings(file), standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result


def test_a_configuration_that_is_broken_is_a_failure_told_in_lines(tmp_path: Path) -> None:
    done = ctl(tmp_path, text='[kafka]\nbootstrap = 3\n[upload]\nurl = "ftp://x"')
    assert done.return_value == 1
    lines = done.stdout.splitlines()
    assert len(lines) >= 2
    assert all(line.startswith("FAIL  configuration  ") and " → " in line for line in lines)


def test_a_secret_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    text = '[kafka]\nsecurity_protocol = "SASL_SSL"\nsasl_username = "u"\nsasl_password = "file:/absent/x"'
    done = ctl(tmp_path, "--only", "configuration", text=text)
    assert done.return_value == 1
    assert "kafka.sasl_password" in done.stdout


def test_only_what_was_asked_for_is_looked_at_and_a_warning_is_no_failure(tmp_path: Path) -> None:
    done = ctl(tmp_path, "--only", "daemon", "--only", "folders", "--json")
    found = json.loads(done.stdout)
    assert done.return_value == 0
    assert [each["check"] for each in found] == ["folders"] * 3 + ["daemon"]
    assert found[-1] == {
        "check": "daemon",
        "outcome": "warn",
        "found": "it does not run",
        "fix": "start it: `pipelinectl start`",
    }
    assert "0 FAIL" in done.stderr


def test_a_daemon_that_holds_its_lock_and_does_not_answer_is_a_failure(tmp_path: Path) -> None:
    lock = Pidfile(f"{tmp_path}/state_dir")
    lock.acquire()
    try:
        done = ctl(tmp_path, "--only", "daemon")
    finally:
        lock.release()
    assert done.return_value == 1
    assert f"pid {os.getpid()}" in done.stdout


def test_a_daemon_of_another_version_and_a_worker_that_was_given_up_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workers = [{"type": "upload", "index": 0, "state": "FATAL", "reason": "given up: exit 78"}]
    document = {
        "versions": {"pipelined": "0.0.1"},
        "pid": os.getpid(),
        "state": "degraded",
        "since": "…",
        "workers": workers,
    }
    monkeypatch.setattr(command, "holder", lambda _: 1)
    monkeypatch.setattr(command, "request", lambda *_: {"status": document})
    done = ctl(tmp_path, "--only", "daemon")
    assert f"it is version 0.0.1, and this is {__version__}" in done.stdout
    assert "FAIL  daemon  upload/0 is FATAL: given up: exit 78 → " in done.stdout
    assert pidfile.holder(str(tmp_path)) is None


@pytest.mark.parametrize(
    ("systemd_says", "outcome", "fix"),
    [
        ("ActiveState=active\nUnitFileState=enabled\nNeedDaemonReload=no\nNRestarts=2", Outcome.OK, None),
        ("ActiveState=failed\nUnitFileState=enabled", Outcome.FAIL, "journalctl -u pipelined@blue"),
        ("ActiveState=active\nUnitFileState=disabled", Outcome.WARN, "systemctl enable pipelined@blue"),
        ("ActiveState=active\nUnitFileState=enabled\nNeedDaemonReload=yes", Outcome.WARN, "daemon-reload"),
    ],
)
def test_the_service_is_told_as_systemd_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, systemd_says: str, outcome: Outcome, fix: str | None
) -> None:
    systemctl = tmp_path / "systemctl"
    systemctl.write_text(f"#!/bin/sh\ncat <<'E'\n{systemd_says}\nE\n")
    systemctl.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(command, "installed_for", lambda _: "pipelined@blue")
    found = json.loads(ctl(tmp_path, "--only", "service", "--json").stdout)
    assert found[0]["outcome"] == outcome
    assert (found[0]["fix"] is None) if fix is None else fix in found[0]["fix"]


def test_a_systemd_that_does_not_answer_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    systemctl = tmp_path / "systemctl"
    systemctl.write_text("#!/bin/sh\nexec sleep 60\n")
    systemctl.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(command, "installed_for", lambda _: "pipelined")
    monkeypatch.setattr(command, "_SYSTEMD_S", 0.3)
    done = ctl(tmp_path, "--only", "service")
    assert done.return_value == 1
    assert "systemctl status pipelined" in done.stdout


def test_the_names_that_the_command_takes_are_those_of_the_checks(tmp_path: Path) -> None:
    assert set(command.NAMES) == {each.name for each in CHECKS} | {"configuration", "service", "daemon"}
    done = ctl(tmp_path, "--only", "service")
    assert done.return_value == 0
    assert done.stdout.startswith("ok    service  ")


def test_each_check_is_on_its_how_to_page() -> None:
    page = (Path(__file__).parents[2] / "docs/how-to/doctor.md").read_text()
    assert [line.split("`")[1] for line in page.splitlines() if line.startswith("| `")] == [*command.NAMES]


def test_the_command_has_one_thread_when_it_forks_its_checks() -> None:
    program = (
        "import os, sys, pipelined.cli.pipelinectl; "
        "print(len(os.listdir('/proc/self/task')), {'deltalake', 'obstore', 'pyarrow'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "1 set()\n", "a lock that a thread holds would stay held in the child"


def test_a_terminal_gets_colours_and_nobody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\x1b" not in ctl(tmp_path, "--only", "daemon").stdout
    monkeypatch.setattr(command, "coloured", lambda: True)
    assert ctl(tmp_path, "--only", "daemon").stdout.startswith("\x1b[33mwarn\x1b[0m  daemon  ")

"""A machine with systemd, and pipelined installed there from its wheel, in /opt/pipelined."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from distribution import build, dependencies
from flow import Flow, event, trace_ids
from machine import ROOT, Machine
from pipelined.local.fileserver import file_path
from waiting import until

CTL = "/opt/pipelined/bin/pipelinectl"
#: On the machine only: what a configuration of a test has else in the folder of the test.
FOLDERS = {
    "state_dir": "/var/lib/pipelined",
    "cache_dir": "/var/lib/pipelined/cache",
    "runtime_dir": "/run/pipelined",
    "upload.url": "file:///srv/claims/files",
    "tables.url": "file:///srv/claims/tables",
    "logs.format": "auto",
}


@contextlib.contextmanager
def installed(folder: Path) -> Iterator[Machine]:
    """The machine, on the loopback of this one, so that the brokers of the test are there."""
    binds = {dependencies(): "/opt/packages", folder: "/opt/wheels"}
    base = Path(sys.base_prefix)
    if ROOT != "/":
        binds[base] = str(base)
    with Machine(binds, own_network=False) as machine:
        for above in base.parents:
            machine.run("chmod", "a+x", above)  # an interpreter in the home of root, for one
        machine.run(base / "bin/python3", "-m", "venv", "--without-pip", "/opt/pipelined")
        (site,) = machine.path("/opt/pipelined/lib").glob("python*/site-packages")
        (site / "locked.pth").write_text("/opt/packages\n")
        put(machine, build(folder / "first").wheel)
        yield machine


def put(machine: Machine, wheel: Path) -> None:
    """Install a wheel that lies below the folder of ``installed``, or go up to it."""
    shared = machine.path("/opt/wheels")
    shutil.copy(wheel, shared)
    pip = ["/opt/pipelined/bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    machine.run(*pip, "--no-index", "--no-deps", f"/opt/wheels/{wheel.name}")


class Installation:
    """One configuration on the machine, as a service: that of ``flow``, with the folders of a service."""

    def __init__(self, machine: Machine, flow: Flow, instance: str = "") -> None:
        self.machine = machine
        self.flow = flow
        self.instance = instance
        self._files = 0
        self.unit = f"pipelined@{instance}" if instance else "pipelined"
        self.file = f"/etc/pipelined/{instance}.toml" if instance else "/etc/pipelined.toml"
        self.configure(FOLDERS)

    def configure(self, settings: Mapping[str, Any]) -> None:
        """Change the configuration; the service has to be told."""
        self.flow.configure(settings)
        self.machine.write(self.file, self.flow.config_file.read_text())

    def drop_in(self, text: str) -> None:
        """What an operator changes for one host."""
        self.machine.write(f"/etc/systemd/system/{self.unit}.service.d/50-test.conf", text)
        self.machine.run("systemctl", "daemon-reload")

    def install(self) -> None:
        """As the how-to says."""
        self.ctl("service", "install", *self._instance())

    def ctl(self, *arguments: str | Path, code: int = 0) -> str:
        """What a ``pipelinectl`` for this configuration prints; it has to end with this code."""
        done = self.machine.run(CTL, "--config", self.file, *arguments, check=False)
        assert done.returncode == code, (
            f"{done.returncode}: {done.stdout}\n{done.stderr}\n{self.machine.tail()}"
        )
        return done.stdout + done.stderr

    def systemctl(self, verb: str, *, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Call systemctl for the service."""
        return self.machine.run("systemctl", verb, self.unit, check=check)

    def show(self, name: str) -> str:
        """A property of the service."""
        return self.machine.show(self.unit, name)[name]

    def until(self, patience: float = 60, **wanted: str) -> None:
        """Wait until the service has these properties."""
        self.machine.until_shows(self.unit, patience, **wanted)

    def until_status(self, condition: Callable[[str], bool], what: str) -> str:
        """Wait for a line of status, as ``systemctl status`` shows it."""

        def reached() -> str:
            line = self.show("StatusText")
            return line if condition(line) else ""

        try:
            return until(reached, what, 60)
        except AssertionError as error:
            raise AssertionError(
                f"{error}; it is {self.show('StatusText')!r}\n{self.machine.tail()}"
            ) from None

    def status(self) -> dict[str, Any]:
        """The whole status, whatever state the daemon is in."""
        done = self.machine.run(CTL, "--config", self.file, "status", "--json", check=False)
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def workers(self) -> dict[str, dict[str, Any]]:
        """Each worker of the status, by its name."""
        return {f"{each['type']}/{each['index']}": each for each in self.status()["workers"]}

    def version(self) -> str:
        """The version of the daemon that runs."""
        return str(self.status()["versions"]["pipelined"])

    def main_pid(self) -> int:
        """The parent, as numbered on the machine."""
        return int(self.show("MainPID"))

    def kill(self, signal: str, pid: int) -> None:
        """Send a signal there."""
        self.machine.run("kill", f"-{signal}", str(pid))

    def load(self, lines: Iterable[bytes]) -> int:
        """Have the operator load a file of events; returns how many lines."""
        data = b"".join(line + b"\n" for line in lines)
        self._files += 1
        name = f"/root/events-{self._files}.jsonl"
        self.machine.path(name).write_bytes(data)
        self.ctl("load", name)
        return data.count(b"\n")

    def load_attachments(self, fault: str, count: int) -> None:
        """Load events of one attachment each, all with this fault."""
        urls = (
            self.flow.files_url + file_path(fault, 20_000, number, "GENERIC.pdf") for number in range(count)
        )
        self.load(event(trace, [url]) for trace, url in zip(trace_ids(count), urls, strict=True))

    def balance(self) -> dict[str, Any]:
        """The ledger of the operator; it has to balance."""
        found: dict[str, Any] = json.loads(self.ctl("ledger", "--json", "--wait", "90"))
        return found

    def remove(self) -> None:
        """Leave nothing to the next one."""
        for verb in ("stop", "reset-failed"):
            self.systemctl(verb, check=False)
        self.machine.run(CTL, "service", "uninstall", *self._instance(), check=False)
        name = self.unit.replace("@", "-")
        self.machine.run(
            *("rm", "-rf", "/srv/claims", self.file, f"/etc/systemd/system/{self.unit}.service.d"),
            *(f"{base}/{name}" for base in ("/var/lib", "/var/cache", "/var/log", "/run")),
        )
        self.machine.run("systemctl", "daemon-reload")

    def _instance(self) -> list[str]:
        return ["--instance", self.instance] if self.instance else []

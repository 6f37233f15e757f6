"""A machine for tests: a real systemd with its journald, booted in namespaces within a second.

Its root is an overlay of this machine's (or of another Debian's in the folder ``MACHINE_ROOT``), in memory:
nothing that is written there remains, and nothing outside is touched. ``/proc/sys`` is read-only, ``/dev``
new, and its control groups lie below one of our own.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from waiting import until

__all__ = ["ROOT", "Machine", "missing"]

_NAMESPACES = ("--pid", "--mount", "--uts", "--ipc", "--cgroup")
_PREFIX = "pipelined-machine"
_FOLDERS = Path("/var/tmp")
_BOOT_S = 60.0
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#: systemd powers the machine off at this signal.
_POWER_OFF = signal.SIGRTMIN + 4
_PR_SET_PDEATHSIG = 1

#: What is below the overlay: this machine, or a folder with another Debian.
ROOT = os.environ.get("MACHINE_ROOT", "/")
_SYSTEMD = Path(ROOT, "lib/systemd/systemd")

# Run in the new namespaces, with W, the folder of the machine; $W/binds lists what of this one is seen there.
_BOOT = r"""
set -eu
root=$W/root
ip link set lo up 2>/dev/null || true
mount -t tmpfs -o mode=755 tmpfs "$W/memory"
mkdir "$W/memory/upper" "$W/memory/work"
mount -t overlay overlay -o "lowerdir=$MACHINE_ROOT,upperdir=$W/memory/upper,workdir=$W/memory/work" "$root"
mount -t proc proc "$root/proc"
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro "$root/proc/sys"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for device in null zero full random urandom tty; do
  : >"$root/dev/$device"
  mount --bind "/dev/$device" "$root/dev/$device"
done
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
for stream in 0:stdin 1:stdout 2:stderr; do ln -s "fd/${stream%%:*}" "$root/dev/${stream##*:}"; done
for folder in run:755 tmp:1777 dev/shm:1777; do
  mount -t tmpfs -o "mode=${folder##*:}" tmpfs "$root/${folder%%:*}"
done
while read -r here there; do
  mkdir -p "$root$there"
  mount --rbind "$here" "$root$there"
done <"$W/binds"
rm -f "$root/etc/machine-id"
tr -d - </proc/sys/kernel/random/uuid >"$root/etc/machine-id"
rm -rf "$root/var/log/journal"
for unit in systemd-modules-load.service systemd-sysctl.service apt-daily.timer apt-daily-upgrade.timer \
            man-db.timer e2scrub_all.timer; do
  ln -sf /dev/null "$root/etc/systemd/system/$unit"
done
mkdir "$root/run/outside"
cd "$root"
pivot_root . run/outside
cd /
umount -l /run/outside
mount --make-rshared / # as systemd expects it: credentials come by a mount that is passed on
exec env -i PATH="$MACHINE_PATH" container=test TERM=dumb LANG=C.UTF-8 \
  /lib/systemd/systemd --system --unit=basic.target --log-target=journal --log-level=info </dev/null
"""


def missing() -> str | None:
    """Why no machine can be booted here; None when one can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "it takes Linux and root"
    if not _SYSTEMD.exists():
        return f"there is no {_SYSTEMD}"
    for command in ("unshare", "nsenter", "pivot_root", "ip", "systemctl", "journalctl"):
        if not shutil.which(command):
            return f"the command {command} is not installed"
    groups = _control_groups()
    if groups is None or not os.access(groups / "cgroup.procs", os.W_OK):
        return "there is no control group hierarchy (version 2) to write to"
    if "overlay" not in Path("/proc/filesystems").read_text():
        return "the kernel has no overlay file system"
    tried = subprocess.run(
        ["unshare", "--fork", *_NAMESPACES, "--net", "true"], capture_output=True, text=True, check=False
    )
    return f"no namespaces: {tried.stderr.strip()}" if tried.returncode else None


def _control_groups() -> Path | None:
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, where, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(where)
    return None


class Machine:
    """Booted on entering, powered off at the end.

    ``binds`` are folders of this machine, without blanks in their names, and where they are seen there. With
    ``own_network`` it has a loopback of its own and nothing else, otherwise that of this machine.
    """

    def __init__(self, binds: Mapping[Path, str] | None = None, *, own_network: bool = True) -> None:
        self._binds = binds or {}
        self._network = ["--net"] if own_network else []
        self._process: subprocess.Popen[bytes] | None = None
        self._pid = 0
        #: How long it took to boot, in seconds.
        self.boot_s = 0.0

    def __enter__(self) -> Self:
        _sweep()
        self._folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}.{os.getpid()}.", dir=_FOLDERS))
        for name in ("memory", "root"):
            (self._folder / name).mkdir()
        (self._folder / "boot.sh").write_text(_BOOT)
        (self._folder / "binds").write_text(
            "".join(f"{here} {there}\n" for here, there in self._binds.items())
        )
        groups = _control_groups()
        assert groups is not None
        self._group = groups / self._folder.name
        self._group.mkdir()
        begun = time.monotonic()
        try:
            self._boot()
            until(self._is_up, "systemd boots", _BOOT_S)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        self.boot_s = time.monotonic() - begun
        return self

    def _boot(self) -> None:
        libc = ctypes.CDLL(None)
        procs = str(self._group / "cgroup.procs")

        def enter() -> None:
            with open(procs, "w") as group:
                group.write("0")
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # a test run that is killed takes it down

        with (self._folder / "boot.log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    *("unshare", "--fork", *_NAMESPACES, *self._network),
                    *("--kill-child=KILL", "--propagation", "private", "bash", self._folder / "boot.sh"),
                ],
                env=os.environ | {"W": str(self._folder), "MACHINE_PATH": _PATH, "MACHINE_ROOT": ROOT},
                preexec_fn=enter,  # noqa: PLW1509 - a test has no thread that would hold a lock here
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _is_up(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self._folder / "boot.log").read_text()
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        if not children:
            return False
        with contextlib.suppress(OSError):
            if Path(f"/proc/{children[0]}/comm").read_text().strip() == "systemd":
                self._pid = int(children[0])
                answer = self.run("systemctl", "is-system-running", check=False)
                return answer.stdout.strip() in {"running", "degraded"}
        return False

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            if self._pid and self._process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self._pid, _POWER_OFF)
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()  # and with it everything in its namespace of processes
                self._process.wait()
        until(lambda: _remove_group(self._group), "the kernel lets go of the control groups", 10)
        shutil.rmtree(self._folder, ignore_errors=True)

    def run(
        self, *command: str | Path, check: bool = True, timeout: float = 120, environment: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run a command there, as root; with ``check`` it has to end with 0."""
        done = subprocess.run(
            [
                *("nsenter", "-t", str(self._pid), "-m", "-p", "-u", "-i", "-n", "-C", "-r", "-w"),
                *("env", "-i", f"PATH={_PATH}", "LANG=C.UTF-8", "SYSTEMD_PAGER=", *environment.split()),
                *map(str, command),
            ],
            text=True,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=timeout,
            check=False,
        )
        assert not check or done.returncode == 0, (
            f"{command} ended with {done.returncode}\n{done.stdout}\n{done.stderr}\n{self.tail()}"
        )
        return done

    def path(self, there: str | Path) -> Path:
        """A path of that machine as this one reaches it."""
        return Path(f"/proc/{self._pid}/root{there}")

    def write(self, there: str, text: str) -> None:
        """Make a file there."""
        path = self.path(there)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def show(self, unit: str, *names: str) -> dict[str, str]:
        """Properties of a unit."""
        answer = self.run("systemctl", "show", unit, f"--property={','.join(names)}")
        return dict(line.split("=", 1) for line in answer.stdout.splitlines() if "=" in line)

    def until_shows(self, unit: str, patience: float = 60, **wanted: str) -> None:
        """Wait until the unit has these properties."""
        shown: dict[str, str] = {}

        def reached() -> bool:
            shown.update(self.show(unit, *wanted))
            return shown == wanted

        try:
            until(reached, f"{unit} has {wanted}", patience)
        except AssertionError as error:
            raise AssertionError(f"{error}; it has {shown}\n{self.tail()}") from None

    def journal(self, *match: str) -> list[dict[str, Any]]:
        """What the journal has, as journalctl is asked for it."""
        self.run("journalctl", "--sync", check=False)
        answer = self.run("journalctl", "--output=json", "--all", "--no-pager", "--quiet", *match)
        return [json.loads(line) for line in answer.stdout.splitlines()]

    def tail(self, lines: int = 60) -> str:
        """The end of the journal, to be read by people."""
        return self.run(
            "journalctl", f"--lines={lines}", "--no-pager", "--quiet", "--output=short-precise", check=False
        ).stdout

    def processes(self) -> dict[int, str]:
        """Every process there that is no zombie: its pid on this machine, and its command line."""
        found = {}
        for line in self._group.rglob("cgroup.procs") if self._group.exists() else ():
            with contextlib.suppress(OSError):
                for pid in line.read_text().split():
                    command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
                    if command:
                        found[int(pid)] = command.strip()
        return found


def _remove_group(group: Path) -> bool:
    try:
        for folder, _, _ in os.walk(group, topdown=False):
            Path(folder).rmdir()
    except FileNotFoundError:
        pass
    except OSError:
        return False  # busy for some milliseconds more
    return True


def _sweep() -> None:
    """Remove what a test run that was killed has left."""
    for base in filter(None, (_control_groups(), _FOLDERS)):
        for path in base.glob(f"{_PREFIX}.*.*"):
            if not Path(f"/proc/{path.name.split('.')[1]}").exists():
                if base == _FOLDERS:
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    _remove_group(path)

"""On what a figure was measured: the machine, the versions, the load, the disk."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import confluent_kafka

from pipelined.local.installation import ensure_kafka

__all__ = ["about", "cpu_seconds", "durable_folder", "load_average", "proportional_kb"]

_PACKAGES = "confluent-kafka deltalake pyarrow msgspec pycurl obstore".split()
_IMAGE_BYTES = 4 << 30
_TICKS = os.sysconf("SC_CLK_TCK")


def about() -> dict[str, Any]:
    """The machine and the versions, ready for JSON."""
    return {
        "date": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "machine": {
            "cpu": _cpu_model(),
            "cores": os.cpu_count(),
            "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
            "kernel": platform.release(),
            "system": platform.freedesktop_os_release().get("PRETTY_NAME", platform.system()),
        },
        "versions": {
            "python": platform.python_version(),
            "librdkafka": confluent_kafka.libversion()[0],
            "kafka": _kafka_version(),
            **{package: _version(package) for package in _PACKAGES},
        },
    }


def load_average() -> list[float]:
    """The load averages of the last 1, 5 and 15 minutes."""
    return [round(value, 2) for value in os.getloadavg()]


def cpu_seconds(pid: int) -> float:
    """The processor time a process has used, its threads included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def proportional_kb(pid: int) -> int:
    """The proportional set size (PSS) of a process: what it shares is counted by its share."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    raise RuntimeError(f"no PSS in smaps_rollup of {pid}")


@contextlib.contextmanager
def durable_folder(folder: Path) -> Iterator[tuple[Path, str]]:
    """A folder to place files durably in, and what it lies on: journaled, because that is what counts.

    On ext4 without a journal a file made soon after others were deleted costs ten times as much. Where
    ``folder`` lies on such a file system and we are root, it is a journaled one in an image.
    """
    kind, device = _file_system(folder)
    if kind != "ext4" or _journaled(device) or os.geteuid() != 0:
        yield folder, f"{kind}{'' if kind != 'ext4' or _journaled(device) else ' without a journal'}"
        return
    with tempfile.TemporaryDirectory(dir=folder) as name:
        image, place = Path(name) / "image", Path(name) / "mounted"
        place.mkdir()
        with image.open("wb") as file:
            file.truncate(_IMAGE_BYTES)
        subprocess.run(
            ["mkfs.ext4", "-q", "-O", "has_journal", "-E", "lazy_itable_init=0", image], check=True
        )
        subprocess.run(["mount", "-o", "loop", image, place], check=True)
        try:
            yield place, "ext4 with a journal (loop-mounted image)"
        finally:
            subprocess.run(["umount", place], check=True)


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        sys.stderr.write(f"benchmarks: {package} is not installed as a package\n")
        return "unknown"


def _kafka_version() -> str:
    for jar in ensure_kafka().jars:
        if Path(jar).name.startswith("kafka_2.13-"):
            return Path(jar).stem.partition("-")[2]
    return "unknown"


def _file_system(folder: Path) -> tuple[str, str]:
    """The kind of file system a folder lies on, and its device."""
    best, found = "", ("unknown", "")
    for line in Path("/proc/mounts").read_text().splitlines():
        device, place, kind = line.split()[:3]
        if str(folder.resolve()).startswith(place.rstrip("/") + "/") and len(place) >= len(best):
            best, found = place, (kind, device)
    return found


def _journaled(device: str) -> bool:
    return any(Path("/proc/fs/jbd2").glob(f"{Path(device).name}-*"))

"""The machine: its clock, and what it lets the processes have."""

from __future__ import annotations

import ctypes
import resource
import time
from collections.abc import Iterator
from contextlib import suppress
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from pipelined.config import Config
from pipelined.config.tree import WORKER_TYPES
from pipelined.config.trust import is_loopback
from pipelined.doctor.finding import Finding, failed, fine, warned
from pipelined.errors import UnavailableError

__all__ = ["clock", "limits"]

_PATIENCE_S: Final = 5.0
#: An offset that is worth a look, and one with which tokens and signatures are refused.
_OFF_S, _REFUSED_S = 5.0, 300.0
_SET: Final = "have the clock set by NTP: `timedatectl set-ntp true`, or chronyd"
#: adjtimex(2): nobody sets the clock.
_TIME_ERROR: Final = 5
#: The size of its structure, with room.
_TIMEX_BYTES: Final = 512
#: Each process with its batches and buffers, beside what all of them share.
_PROCESS_MB: Final = 120
#: Descriptors of one process beside those of its transfers: brokers, logs, memory, tables.
_DESCRIPTORS: Final = 256


def clock(config: Config) -> Iterator[Finding]:
    """The clock, against the Date of each HTTP service that is configured; else whether anybody sets it."""
    addresses = dict.fromkeys(_services(config))
    told = 0
    for address in addresses:
        try:
            offset = _offset(address)
        except UnavailableError as error:
            yield warned(str(error), "see the finding of that service")
            continue
        told += 1
        text = f"{offset:+.0f} s off {urlsplit(address).hostname}"
        if abs(offset) > _REFUSED_S:
            yield failed(f"{text}: logins will be refused", _SET)
        else:
            yield warned(text, _SET) if abs(offset) > _OFF_S else fine(text)
    if not told:
        yield _kernel()


def _services(config: Config) -> Iterator[str]:
    if config.eventhouse.url:
        yield config.eventhouse.url
    for section in (config.upload, config.tables):
        parts = urlsplit(section.url)
        if parts.scheme in ("abfss", "abfs"):
            yield f"https://{parts.hostname}"
        if section.auth.method in ("client_secret", "certificate", "workload_identity"):
            yield section.auth.authority


def _offset(address: str) -> float:
    """How far this clock is before that of a service, in seconds; UnavailableError where it tells none."""
    # Heavy, and needed here only.
    import requests

    parts = urlsplit(address)
    try:
        with requests.Session() as session:
            session.trust_env = not is_loopback(parts.hostname or "")
            began = time.time()
            answer = session.head(
                f"{parts.scheme}://{parts.netloc}/", timeout=_PATIENCE_S, allow_redirects=False
            )
            ended = time.time()
        # The header has whole seconds, cut.
        theirs = parsedate_to_datetime(answer.headers["Date"]).timestamp() + 0.5
    except (requests.RequestException, KeyError, ValueError) as error:
        raise UnavailableError(f"{parts.hostname} does not tell the time: {error}") from error
    return (began + ended) / 2 - theirs


def _kernel() -> Finding:
    libc = ctypes.CDLL(None, use_errno=True)
    state = libc.adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    text = "no service is configured that tells the time"
    if state < 0:
        return fine(f"{text}, and the kernel does not say whether anybody sets the clock")
    if state == _TIME_ERROR:
        return warned(f"{text}, and nobody sets the clock of this machine", _SET)
    return fine(f"{text}; the kernel says that the clock is set by NTP")


def limits(config: Config) -> Iterator[Finding]:
    """Descriptors and memory: what this user's processes may have, against what is configured."""
    most = 4 * config.download.concurrency + 2 * config.upload.concurrency + _DESCRIPTORS
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    text = f"{soft:,} open files for a process that is started here; a download process may need {most:,}"
    if soft != resource.RLIM_INFINITY and soft < most:
        yield failed(text, "`ulimit -n 16384`, or start it as a service: its unit says so")
    else:
        yield fine(text)
    processes = sum(config.worker(each).processes for each in WORKER_TYPES)
    wanted = processes * _PROCESS_MB
    there = _memory_mb()
    text = f"{there:,} MB of memory; {processes} processes want about {wanted:,} MB"
    if there < wanted:
        yield warned(text, "more memory, or fewer processes (`workers.*.processes`)")
    else:
        yield fine(text)


def _memory_mb() -> int:
    """What this machine has, or what the group of this process may have of it."""
    found = [int(line.split()[1]) * 1024 for line in _lines("/proc/meminfo") if line.startswith("MemTotal:")]
    for line in _lines("/proc/self/cgroup"):
        group = Path("/sys/fs/cgroup") / line.rpartition(":")[2].strip().lstrip("/")
        for folder in (group, *group.parents):
            with suppress(OSError, ValueError):
                found.append(int((folder / "memory.max").read_text()))
    return min(found, default=0) // 1_000_000


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []

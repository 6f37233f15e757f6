"""``supervisor``: how soon a killed worker is back, and what the parent costs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.ground import Ground, wait_for
from benchmarks.machine import cpu_seconds, proportional_kb
from benchmarks.report import Check, Figure, Result
from benchmarks.supervised import WORKERS
from pipelined.errors import UnavailableError
from pipelined.supervisor.protocol import ask

NAME = "supervisor"

_METHOD = (
    "`supervised.py`: the supervisor of the daemon with its libraries loaded and {workers} workers that only "
    "give signs of life, without a back-off. *Idle*: processor time of the parent alone over {seconds:g} s. "
    "*Memory*: the parent's proportional set size, and what of it nobody shares (Private_Clean and "
    "Private_Dirty of smaps_rollup). *Killed*: one worker at a time gets SIGKILL, {kills} times; the time is "
    "until the first line of the new process's own code. *Asked*: {asks} times `status` on the control "
    "socket, connecting included: how long the parent's loop lets an operator wait. *Drained*: "
    "`restart` of all of them, for each process."
)


def run(ground: Ground, folder: Path, *, quick: bool, repetitions: int) -> Result:
    """Measure."""
    del ground
    seconds, kills, asks = (3.0, 20, 100) if quick else (10.0, 100, 500)
    place = folder / "supervised"
    place.mkdir()
    command = [sys.executable, "-m", "benchmarks.supervised", str(place)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as parent:
        try:
            wait_for(lambda: _running(place), "every worker runs", 60)
            cpu, memory, own = _watch(parent.pid, seconds, repetitions)
            back = [_kill(place, count) for count in range(kills)]
            asked = [_ask(place) for _ in range(asks)]
            restarts = [_restart(place) for _ in range(repetitions)]
        finally:
            parent.send_signal(signal.SIGTERM)
            parent.wait(30)
    idle = Figure("parent, idle: processor", "% of a core", cpu)
    killed = Figure("SIGKILL of a worker to its successor's first line", "ms", back)
    return Result(
        NAME,
        "The parent",
        _METHOD.format(workers=WORKERS, seconds=seconds, kills=kills, asks=asks),
        [
            killed,
            Figure("status on the control socket", "ms", asked),
            Figure("restart of one process, drained, to READY", "ms", restarts),
            idle,
            Figure("parent, memory (PSS)", "MiB", memory),
            Figure("parent, memory that nobody shares", "MiB", own),
        ],
        [
            Check("SIGKILL of a worker to its successor, median", killed.median, "<=", 20, "ms"),
            Check("parent idle, median", idle.median, "<=", 0.2, "% of a core"),
            Check("parent's own memory, worst", max(own), "<=", 12, "MiB"),
        ],
    )


def _running(place: Path) -> bool:
    try:
        status = ask(str(place), {"cmd": "status"})["status"]
    except UnavailableError:
        return False
    return all(worker["state"] == "RUNNING" for worker in status["workers"])


def _watch(pid: int, seconds: float, repetitions: int) -> tuple[list[float], list[float], list[float]]:
    cpu, memory, own = [], [], []
    for _ in range(repetitions):
        began, used = time.monotonic(), cpu_seconds(pid)
        time.sleep(seconds)
        cpu.append(100 * (cpu_seconds(pid) - used) / (time.monotonic() - began))
        memory.append(proportional_kb(pid) / 1024)
        own.append(_private_kb(pid) / 1024)
    return cpu, memory, own


def _private_kb(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))


def _starts(place: Path) -> list[tuple[int, int, float]]:
    lines = [line.split() for line in (place / "starts").read_text().splitlines()]
    return [(int(index), int(pid), float(when)) for index, pid, when in lines]


def _kill(place: Path, count: int) -> float:
    """Milliseconds."""
    before = _starts(place)
    victim = next(pid for index, pid, _ in reversed(before) if index == count % WORKERS)
    killed = time.monotonic()
    os.kill(victim, signal.SIGKILL)
    wait_for(lambda: len(_starts(place)) > len(before), "it is back", 20)
    wait_for(lambda: _running(place), "it is ready", 20)
    return 1000 * (_starts(place)[-1][2] - killed)


def _ask(place: Path) -> float:
    """Milliseconds."""
    began = time.monotonic()
    ask(str(place), {"cmd": "status"})
    return 1000 * (time.monotonic() - began)


def _restart(place: Path) -> float:
    """Milliseconds for each process."""
    began = time.monotonic()
    ask(str(place), {"cmd": "restart", "type": "idle"})
    wait_for(
        lambda: ask(str(place), {"cmd": "operation"})["operation"]["state"] == "done", "all are back", 60
    )
    return 1000 * (time.monotonic() - began) / WORKERS

"""``supervisor``: how soon a killed worker is back, and what the parent costs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.ground import Daemon, Ground, wait_for
from benchmarks.machine import cpu_seconds, proportional_kb
from benchmarks.report import Check, Figure, Result
from benchmarks.supervised import WORKERS
from pipelined.errors import UnavailableError
from pipelined.supervisor.protocol import ask

NAME = "supervisor"

_WORKER = "event-ingester"
_METHOD = (
    "`supervised.py`: the supervisor of the daemon with its libraries loaded and {workers} workers that "
    "only give signs of life, without a back-off. *Idle*: processor time of the parent alone over "
    "{seconds:g} s. *Memory*: the parent's proportional set size, and what of it nobody shares "
    "(Private_Clean and Private_Dirty of smaps_rollup), before and after all that follows. *Killed*: one "
    "worker at a time gets SIGKILL, {kills} times; the time is until the first line of the new process's "
    "own code. *gunicorn*: its arbiter with as many sync workers and the same libraries loaded before the "
    "fork (`bare_arbiter.py`, preload_app); in turns with ours one of its workers gets SIGKILL, and the "
    "time is until its post_worker_init hook, which like our first line comes when signals and "
    "descriptors are set. Each has 0.2 s of rest before. *Asked*: {asks} times `status` on the control "
    "socket, connecting included: how long the parent's loop lets an operator wait. *Drained*: `restart` "
    "of all of them, for each process. *Ready*: `pipelined run --worker event-ingester` on the local "
    "Kafka, default settings but for the back-off, which is 0, and the limit of restarts; its process "
    "gets SIGKILL {real} times, until the status shows the next one ready: topics, group, partitions, "
    "memory for duplicates. *Longest turn*: what the loop of each of the two parents did between two "
    "waits, measured by itself from its start to here, the kills and restarts included."
)


def run(ground: Ground, folder: Path, *, quick: bool, repetitions: int) -> Result:
    """Measure."""
    seconds, kills, asks, real = (3.0, 20, 100, 8) if quick else (10.0, 100, 500, 20)
    with ExitStack() as stack:
        ours = stack.enter_context(_supervised(folder / "supervised"))
        cpu, memory, own = _watch(ours.pid, seconds, repetitions)
        arbiter = stack.enter_context(_arbiter(folder / "gunicorn"))
        back, beside = [], []
        for _ in range(kills):
            back.append(ours.kill())
            beside.append(arbiter.kill())
        asked = [_ask(ours.place) for _ in range(asks)]
        restarts = [_restart(ours.place) for _ in range(repetitions)]
        own.append(_private_kb(ours.pid) / 1024)
        loops = [_status(ours.place)["loop"]]
    ready, loop = _real(ground, real)
    loops.append(loop)
    killed = Figure("SIGKILL of a worker to its successor's first line", "ms", back)
    gunicorn = Figure("gunicorn, SIGKILL of a worker to its successor's first line", "ms", beside)
    at_work = Figure(f"SIGKILL of a real {_WORKER} to READY", "ms", ready)
    idle = Figure("parent, idle: processor", "% of a core", cpu)
    turn = Figure("parent, longest turn of its loop", "ms", [loop["longest_ms"] for loop in loops])
    return Result(
        NAME,
        "The parent",
        _METHOD.format(workers=WORKERS, seconds=seconds, kills=kills, asks=asks, real=real),
        [
            killed,
            gunicorn,
            at_work,
            turn,
            Figure("the same, processor time", "ms", [loop["longest_cpu_ms"] for loop in loops]),
            Figure("parent, longest fork", "ms", [loop["longest_fork_ms"] for loop in loops]),
            Figure("status on the control socket", "ms", asked),
            Figure("restart of one process, drained, to READY", "ms", restarts),
            idle,
            Figure("parent, memory (PSS)", "MiB", memory),
            Figure("parent, memory that nobody shares", "MiB", own),
        ],
        [
            Check("SIGKILL of a worker to its successor, median", killed.median, "<=", 20, "ms"),
            Check("the same / gunicorn, medians", killed.median / gunicorn.median, "<=", 1),
            Check(f"SIGKILL of a real {_WORKER} to READY, median", at_work.median, "<=", 300, "ms"),
            Check("parent blocked, worst turn", max(turn.samples), "<=", 10, "ms"),
            Check("parent idle, median", idle.median, "<=", 0.2, "% of a core"),
            Check("parent's own memory, worst", max(own), "<=", 12, "MiB"),
        ],
    )


class _Parent:
    """One of the two parents. Each worker of its writes its number, its pid and the moment to ``starts``."""

    def __init__(self, pid: int, place: Path, starts: Path) -> None:
        self.pid = pid
        self.place = place
        self._starts = starts
        wait_for(lambda: len(self._told()) == WORKERS, "every worker", 60)
        self._alive = [pid for _, pid, _ in self._told()]

    def kill(self) -> float:
        """Kill the oldest worker; milliseconds until its successor begins."""
        time.sleep(0.2)
        count = len(self._told())
        killed = time.monotonic()
        os.kill(self._alive.pop(0), signal.SIGKILL)
        wait_for(lambda: len(self._told()) > count, "it is back", 20)
        _, pid, when = self._told()[-1]
        self._alive.append(pid)
        return 1000 * (when - killed)

    def _told(self) -> list[tuple[int, int, float]]:
        if not self._starts.exists():
            return []
        lines = [line.split() for line in self._starts.read_text().splitlines()]
        return [(int(index), int(pid), float(when)) for index, pid, when in lines]


@contextmanager
def _supervised(place: Path) -> Iterator[_Parent]:
    place.mkdir()
    with _process([sys.executable, "-m", "benchmarks.supervised", str(place)], {}) as process:
        wait_for(lambda: _running(place), "every worker runs", 60)
        yield _Parent(process.pid, place, place / "starts")


@contextmanager
def _arbiter(place: Path) -> Iterator[_Parent]:
    place.mkdir()
    module = "benchmarks.bare_arbiter"
    command = [sys.executable, "-m", "gunicorn", "-c", f"python:{module}", f"{module}:application"]
    with _process(command, {"BENCH_FOLDER": str(place)}) as process:
        yield _Parent(process.pid, place, place / "starts")


@contextmanager
def _process(command: list[str], variables: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    environment = os.environ | variables
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, env=environment) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


def _status(place: Path) -> dict[str, Any]:
    status: dict[str, Any] = ask(str(place), {"cmd": "status"})["status"]
    return status


def _running(place: Path) -> bool:
    try:
        status = _status(place)
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


def _real(ground: Ground, kills: int) -> tuple[list[float], dict[str, Any]]:
    """Milliseconds from each kill of a real worker until its successor is ready; the parent's loop."""
    path = ground.config(more="[supervisor]\nbackoff_first_s = 0.0\nmax_restarts = 1000\n")
    times = []
    with Daemon(path, _WORKER) as daemon:
        daemon.ready()
        for _ in range(kills):
            time.sleep(0.5)
            victim = daemon.worker(_WORKER)["pid"]

            def back(victim: int = victim) -> bool:
                worker = daemon.worker(_WORKER)
                return worker["ready"] and worker["pid"] not in {None, victim}

            killed = time.monotonic()
            os.kill(victim, signal.SIGKILL)
            wait_for(back, "it is ready", every=0.002)
            times.append(1000 * (time.monotonic() - killed))
        return times, _status(Path(daemon.config.runtime_dir))["loop"]


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

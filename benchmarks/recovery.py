"""``recovery``: from SIGKILL of a worker to its next committed output, with load flowing."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import ExitStack
from pathlib import Path

from benchmarks.events import Events
from benchmarks.ground import Daemon, Ground, bare, wait_for
from benchmarks.latency import arrivals, pace
from benchmarks.report import Check, Figure, Result
from pipelined.config import load
from pipelined.kafka.settings import Names

NAME = "recovery"

_RATE = 200
_BETWEEN = 1.0
_SUPERVISOR = "[supervisor]\nhealthy_s = 0.5\nmax_restarts = 1000\n"
_METHOD = (
    "`pipelined run --worker event-ingester` under {rate} events a second. Its process is killed "
    "(SIGKILL) {kills} times, {between:g} s after each return; the time is from the kill until a "
    "read_committed reader has an output whose event was produced after the kill, so that nobody but the "
    "restarted worker can have made it. Default settings, except that {between:g} s up count as healthy "
    "(healthy_s 0.5) and restarts are not limited, because nobody can wait 60 s between the kills. The "
    "bare loop is a consume-produce-commit process that is started anew at once when it was killed, "
    "Python's start included."
)


def run(ground: Ground, folder: Path, *, quick: bool, repetitions: int) -> Result:
    """Measure."""
    del folder, repetitions
    kills = 3 if quick else 20
    worker = Figure("event-ingester, SIGKILL to output", "s", _worker(ground, kills))
    loop = Figure("bare loop, SIGKILL to output", "s", _bare(ground, kills // 3 or 1))
    return Result(
        NAME,
        "Back after SIGKILL",
        _METHOD.format(rate=_RATE, kills=kills, between=_BETWEEN),
        [worker, loop],
        [Check("SIGKILL to working again, median", worker.median, "<=", 0.6, "s")],
    )


class _Load(threading.Thread):
    """Events until ``stop``; ``sent`` once it has ended."""

    def __init__(self, path: Path, series: int) -> None:
        super().__init__(daemon=True)
        self.config = load(path, environ={}).config
        self.ended = threading.Event()
        self.events = Events("http://127.0.0.1:1", every=1_000_000_000, series=series)
        self.sent: dict[bytes, float] = {}

    def run(self) -> None:
        topic = Names(self.config).topic("events_raw")
        self.sent = pace(self.config, topic, self.events, _RATE, 600, self.ended)

    def stop(self) -> None:
        self.ended.set()
        self.join()


def _back(arrived: dict[bytes, float], killed: list[float], sent: dict[bytes, float]) -> list[float]:
    """For each kill, how long until the first arrival of an event that was sent after it."""
    pairs = [(arrived[key], sent[key]) for key in sent if key in arrived]
    return [min(at for at, since in pairs if since > moment) - moment for moment in killed]


def _worker(ground: Ground, kills: int) -> list[float]:
    path = ground.config(more=_SUPERVISOR)
    with Daemon(path, "event-ingester") as daemon, ExitStack() as stack:
        daemon.ready()
        load = _Load(path, 301)
        arrived = stack.enter_context(arrivals(load.config, Names(load.config).topic("events_ingested")))
        load.start()
        stack.callback(load.stop)
        killed: list[float] = []
        for _ in range(kills):
            time.sleep(_BETWEEN)
            pid = daemon.worker("event-ingester")["pid"]
            killed.append(time.monotonic())
            os.kill(pid, signal.SIGKILL)
            _wait_back(arrived, killed[-1])
        load.stop()
        wait_for(lambda: len(arrived) >= len(load.sent), "all outputs")
        return _back(arrived, killed, load.sent)


def _bare(ground: Ground, kills: int) -> list[float]:
    path = ground.config()
    load = _Load(path, 302)
    names = Names(load.config)
    source, target = names.topic("events_raw"), names.topic("events_ingested")
    with ExitStack() as stack:
        arrived = stack.enter_context(arrivals(load.config, target))
        load.start()
        stack.callback(load.stop)
        killed: list[float] = []
        for _ in range(kills + 1):
            with bare("bare_hop", path, source, target, 0, 1000) as process:
                if killed:
                    _wait_back(arrived, killed[-1])
                else:
                    wait_for(lambda: bool(arrived), "the bare loop")
                time.sleep(_BETWEEN)
                killed.append(time.monotonic())
                process.kill()
        load.stop()
        return _back(arrived, killed[:-1], load.sent)


def _wait_back(arrived: dict[bytes, float], killed: float) -> None:
    """Wait until outputs flow again: several arrivals well after the kill."""

    def flowing() -> bool:
        last = max(arrived.values())
        return last > killed + 0.05 and time.monotonic() - last < 0.1

    wait_for(flowing, "the worker's return", 30, every=0.05)

"""``recovery``: a worker killed, and a broker killed, with load flowing: until it flows again."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Container
from contextlib import ExitStack
from pathlib import Path

from benchmarks.events import FILE_BYTES, Events
from benchmarks.fileserver import serving
from benchmarks.ground import PARTITIONS, Daemon, Ground, bare, wait_for
from benchmarks.latency import arrivals, pace
from benchmarks.report import Check, Figure, Result
from pipelined.config import Config, load
from pipelined.kafka.groups import members
from pipelined.kafka.settings import Names

NAME = "recovery"

_RATE = 200
_BETWEEN = 1.0
_BROKER_RATE = 50
_SUPERVISOR = "[supervisor]\nhealthy_s = 0.5\nmax_restarts = 1000\n"
_METHOD = (
    "`pipelined run --worker event-ingester` under {rate} events a second. Its process is killed "
    "(SIGKILL) {kills} times, {between:g} s after each return; the time is from the kill until a "
    "read_committed reader has an output whose event was produced after the kill, so that nobody but the "
    "restarted worker can have made it. Default settings, except that {between:g} s up count as healthy "
    "(healthy_s 0.5) and restarts are not limited, because nobody can wait 60 s between the kills. The "
    "bare loop is a consume-produce-commit process that is started anew at once when it was killed, "
    "Python's start included. *One of two*: the same with processes = 2, of which the first is killed; what "
    "the other one's partitions have in the second after the kill, as a share of the second before it. "
    "*Broker*: the whole daemon on three brokers, whose session timeout is 1.5 s, under {broker_rate} events "
    "a second with one file each; each broker in turn is killed (SIGKILL), and started again after 12 s, so "
    "that every leader and coordinator is hit once. The time is from the kill until of every partition an "
    "event that was produced after it has its result."
)


def run(ground: Ground, folder: Path, *, quick: bool, repetitions: int) -> Result:
    """Measure."""
    del repetitions
    kills = 3 if quick else 20
    worker = Figure("event-ingester, SIGKILL to output", "s", _worker(ground, kills))
    loop = Figure("bare loop, SIGKILL to output", "s", _bare(ground, kills // 3 or 1))
    back, shares = _one_of_two(ground, kills // 2 or 1)
    own = Figure("event-ingester, one of two killed: SIGKILL to output of its partitions", "s", back)
    others = Figure("event-ingester, one of two killed: throughput of the other's", "", shares)
    broker = Figure("broker of three, SIGKILL to results", "s", _broker(folder, 1 if quick else 3))
    return Result(
        NAME,
        "Back after SIGKILL",
        _METHOD.format(rate=_RATE, kills=kills, between=_BETWEEN, broker_rate=_BROKER_RATE),
        [worker, loop, own, others, broker],
        [
            Check("SIGKILL of a worker to working again, median", worker.median, "<=", 0.6, "s"),
            Check("the other worker's throughput meanwhile, median", others.median, ">=", 0.95),
            Check("SIGKILL of a broker to results, worst", max(broker.samples), "<=", 10, "s"),
        ],
    )


class _Load(threading.Thread):
    """Events until ``stop``; ``sent`` once it has ended."""

    def __init__(self, path: Path, series: int, rate: int = _RATE, files_url: str = "") -> None:
        super().__init__(daemon=True)
        self.config = load(path, environ={}).config
        self.ended = threading.Event()
        self.rate = rate
        every, files = (1, 1) if files_url else (1_000_000_000, 0)
        self.events = Events(files_url or "http://127.0.0.1:1", every=every, files=files, series=series)
        self.sent: dict[bytes, float] = {}

    def run(self) -> None:
        topic = Names(self.config).topic("events_raw")
        self.sent = pace(self.config, topic, self.events, self.rate, 600, self.ended)

    def of(self, partitions: Container[int]) -> dict[bytes, float]:
        """What was sent to these partitions; ``pace`` deals it out in turn."""
        return {key: at for n, (key, at) in enumerate(self.sent.items()) if n % PARTITIONS in partitions}

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


def _one_of_two(ground: Ground, kills: int) -> tuple[list[float], list[float]]:
    """For each kill the time until the killed one's partitions moved, and the other's share of throughput."""
    path = ground.config(more=_SUPERVISOR + "[workers.event_ingester]\nprocesses = 2\n")
    with Daemon(path, "event-ingester") as daemon, ExitStack() as stack:
        daemon.ready()
        load = _Load(path, 303)
        wait_for(lambda: len(_owned(load.config, 0)) == len(_owned(load.config, 1)) == 2, "two and two")
        mine, others = _owned(load.config, 0), _owned(load.config, 1)
        arrived = stack.enter_context(arrivals(load.config, Names(load.config).topic("events_ingested")))
        load.start()
        stack.callback(load.stop)
        wait_for(lambda: bool(arrived), "the first output")
        killed: list[float] = []
        for _ in range(kills):
            time.sleep(2 * _BETWEEN)
            pid = next(worker["pid"] for worker in daemon.workers() if not worker["index"])
            killed.append(time.monotonic())
            os.kill(pid, signal.SIGKILL)
            time.sleep(_BETWEEN)
            _wait_back(arrived, killed[-1])
        load.stop()
        wait_for(lambda: len(arrived) >= len(load.sent), "all outputs")
        kept = load.of(others)
        shares = [_count(kept, arrived, at, 1.0) / _count(kept, arrived, at - 1.0, 1.0) for at in killed]
        return _back(arrived, killed, load.of(mine)), shares


def _owned(config: Config, index: int) -> set[int]:
    """The partitions of one event-ingester process."""
    found = members(config, ["event-ingester"])
    return {number for member in found if member.index == index for _, number in member.partitions}


def _count(sent: Container[bytes], arrived: dict[bytes, float], since: float, seconds: float) -> int:
    return sum(key in sent for key, at in arrived.items() if since <= at < since + seconds)


def _broker(folder: Path, kills: int) -> list[float]:
    """For each broker killed, how long until every partition's fresh events have results."""
    with Ground(folder / "three", nodes=3) as ground, serving(FILE_BYTES) as files_url, ExitStack() as stack:
        path = ground.config(files_url=files_url)
        daemon = stack.enter_context(Daemon(path))
        daemon.ready()
        load = _Load(path, 304, _BROKER_RATE, files_url)
        arrived = stack.enter_context(arrivals(load.config, Names(load.config).topic("downloads_results")))
        load.start()
        stack.callback(load.stop)
        wait_for(lambda: len(arrived) > 5 * _BROKER_RATE, "the first results")
        killed: list[float] = []
        for node in ground.cluster.nodes[:kills]:
            killed.append(time.monotonic())
            node.kill()
            time.sleep(12)
            _wait_back(arrived, killed[-1])
            node.launch()
            node.wait_ready(time.monotonic() + 60, ground.cluster.nodes)
            time.sleep(5)  # its copies catch up
        load.stop()
        wait_for(lambda: len(arrived) >= len(load.sent), "all results")
        times = [_back(arrived, killed, load.of([number])) for number in range(PARTITIONS)]
        return [max(of_kill) for of_kill in zip(*times, strict=True)]


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

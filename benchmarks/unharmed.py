"""``unharmed``: what the others notice of a worker that hangs, and of a log that nobody takes."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import socket
import statistics
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from benchmarks.events import Events
from benchmarks.ground import Daemon, Ground, wait_for
from benchmarks.latency import arrivals, committed_rows, pace
from benchmarks.report import Check, Figure, Result
from pipelined.kafka.settings import Names

NAME = "unharmed"

_RATE = 1000
_TALKS_OF = 2
_OUT_S = 1.0
_ROW_S = 3.0
_SETTLES_S = 1.0
_HANGS_S, _STOPPED_S = 5.5, 10.0
_VICTIM = "upload"
_WORKERS = ("event-ingester", "event-writer", "retry-scheduler", _VICTIM, "endpoint")
_METHOD = (
    "The daemon ({workers}) under {rate:,} events a second without attachments, evenly paced. Windows of "
    "{calm:g} s without a fault and of {fault:g} s with it, in turns; the fault begins with its window, "
    "and {settles:g} s after it are not counted. Throughput is the share of a window's events that come out "
    "in time: as a committed message of events.ingested within {out:g} s of having been produced, as a "
    "committed row of xact_events within {row:g} s (they wait up to 1 s for others). Whoever stands "
    "still, or cannot keep up, is late, and catching up does not make that good. A sample is a window "
    "with the fault, divided by the calm one before it. *Hangs*: the loop of the upload worker comes back "
    "no more; it is found after {hang:g} s (hang_s), aborted with its stacks in the log, restarted, and "
    "hangs again, for {hangs:g} s. *Stopped*: it gets SIGSTOP, is found, does not take the SIGABRT, is "
    "put out of its group, killed 5 s later, and back: {stopped:g} s. It has nothing to do in any window, "
    "so that its absence gives the others no processor time that could hide harm. *Logs*: everything logs "
    "at DEBUG, nothing counts as repeated, and the event-ingester tells of every second event "
    "(`talkative.py`: the package itself tells nothing of an event that goes well). Its *disk* is a tmpfs "
    "in a mount namespace of the daemon's own, which is filled up; its *pipe* is stderr, whose reader "
    "stops reading; *journald* is a datagram socket whose reader stops reading (logs.format = journal). "
    "In each of these windows lines were lost, or the run fails. *p99*: from an event's production to its "
    "committed message."
)
_KAFKA = "session_timeout_s = 6.0\ntransaction_timeout_s = 3.0\n"
_HANG_S = 3.5
_SETTINGS = f"""
[logs]
level = "DEBUG"
format = "%s"
repeats = 0
[supervisor]
backoff_first_s = 0.1
backoff_max_s = 0.1
max_restarts = 1000
[workers.upload]
hang_s = {_HANG_S}
"""


@dataclass(frozen=True)
class _Times:
    warm_up: float
    calm: float
    fault: float
    pairs: int


@dataclass
class _Fault:
    """``begin`` and ``end`` make and lift it; ``felt`` is a number that it makes grow."""

    name: str
    begin: Callable[[], None]
    end: Callable[[], None]
    felt: Callable[[], float]
    seconds: float
    #: Begin and end on the monotonic clock, the calm one first.
    windows: list[tuple[tuple[float, float], tuple[float, float]]] = field(default_factory=list)


@dataclass
class _Seen:
    """What came of the windows of a fault."""

    out: list[float]
    rows: list[float]
    calm_p99: list[float]
    fault_p99: list[float]


def run(ground: Ground, folder: Path, *, quick: bool, repetitions: int) -> Result:
    """Measure."""
    times = _Times(3.0, 1.0, 2.0, 1) if quick else _Times(8.0, 4.0, 4.0, repetitions)
    seen: dict[str, _Seen] = {}
    for number, trial in enumerate((_on_disk, _to_a_pipe, _to_the_journal)):
        place = folder / f"trial{number}"
        place.mkdir()
        seen |= trial(_Load(ground, place, times, 401 + number))
    figures, checks = [], []
    for name, found in seen.items():
        out = Figure(f"{name}: messages", "of calm", found.out)
        rows = Figure(f"{name}: rows", "of calm", found.rows)
        figures += [
            out,
            rows,
            Figure(f"{name}: p99, calm", "ms", found.calm_p99),
            Figure(f"{name}: p99, with it", "ms", found.fault_p99),
        ]
        checks += [Check(f"{each.name}, median", each.median, ">=", 0.95) for each in (out, rows)]
    method = _METHOD.format(
        workers=", ".join(_WORKERS),
        rate=_RATE,
        calm=times.calm,
        fault=times.fault,
        hang=_HANG_S,
        hangs=_HANGS_S,
        stopped=_STOPPED_S,
        settles=_SETTLES_S,
        out=_OUT_S,
        row=_ROW_S,
    )
    return Result(
        NAME, "The others' throughput beside a fault, as a share of that without it", method, figures, checks
    )


@dataclass
class _Load:
    """A daemon under events, and what comes out of it in windows with and without faults."""

    ground: Ground
    place: Path
    times: _Times
    series: int

    def config(self, form: str) -> Path:
        return self.ground.config(kafka=_KAFKA, more=_SETTINGS % form)

    def program(self) -> list[str | Path]:
        return [sys.executable, "-m", "benchmarks.talkative", self.place, str(_TALKS_OF)]

    def under(self, daemon: Daemon, faults: list[_Fault]) -> dict[str, _Seen]:
        """Make each fault so often; what came out."""
        daemon.ready()
        ended = threading.Event()
        sent: dict[bytes, float] = {}
        events = Events("http://127.0.0.1:1", every=1_000_000_000, series=self.series)
        topics = Names(daemon.config)

        def send() -> None:
            sent.update(pace(daemon.config, topics.topic("events_raw"), events, _RATE, 600, ended))

        sender = threading.Thread(target=send)
        with arrivals(daemon.config, topics.topic("events_ingested")) as arrived:
            sender.start()
            try:
                wait_for(lambda: len(arrived) >= self.times.warm_up * _RATE, "the first events")
                for fault in faults:
                    for _ in range(self.times.pairs):
                        fault.windows.append(self._pair(fault))
            finally:
                ended.set()
                sender.join()
            wait_for(lambda: len(arrived) >= len(sent), "all events")
        table = Path(daemon.config.tables.url.removeprefix("file://")) / f"{daemon.config.domain}_events"
        wait_for(lambda: len(committed_rows(table)) >= len(sent), "all rows", every=0.5)
        rows = committed_rows(table)
        wall = time.time() - time.monotonic()
        rows = {key: at - wall for key, at in rows.items()}
        return {fault.name: _judged(fault, sent, arrived, rows) for fault in faults}

    def _pair(self, fault: _Fault) -> tuple[tuple[float, float], tuple[float, float]]:
        time.sleep(_SETTLES_S)
        calm = _window(self.times.calm)
        before, began = fault.felt(), time.monotonic()
        fault.begin()
        try:
            time.sleep(max(0.0, began + fault.seconds - time.monotonic()))
            with_it = began, time.monotonic()
            wait_for(lambda: fault.felt() > before, f"a sign of the fault: {fault.name}", 10)
        finally:
            fault.end()
        return calm, with_it


def _window(seconds: float) -> tuple[float, float]:
    began = time.monotonic()
    time.sleep(seconds)
    return began, time.monotonic()


def _judged(
    fault: _Fault, sent: dict[bytes, float], arrived: dict[bytes, float], rows: dict[bytes, float]
) -> _Seen:
    seen = _Seen([], [], [], [])
    for calm, with_it in fault.windows:
        out, in_rows = _share(calm, sent, arrived, _OUT_S), _share(calm, sent, rows, _ROW_S)
        if not out or not in_rows:
            raise RuntimeError("this machine does not carry the load without a fault: nothing came in time")
        seen.out.append(_share(with_it, sent, arrived, _OUT_S) / out)
        seen.rows.append(_share(with_it, sent, rows, _ROW_S) / in_rows)
        seen.calm_p99.append(_p99(calm, sent, arrived))
        seen.fault_p99.append(_p99(with_it, sent, arrived))
    return seen


def _share(
    window: tuple[float, float], sent: dict[bytes, float], came: dict[bytes, float], within: float
) -> float:
    """Of the events of the window, how many came in time."""
    of_window = [key for key, at in sent.items() if window[0] <= at < window[1]]
    return sum(came[key] - sent[key] <= within for key in of_window) / len(of_window)


def _p99(window: tuple[float, float], sent: dict[bytes, float], came: dict[bytes, float]) -> float:
    """Milliseconds."""
    began, ended = window
    return (
        1000
        * statistics.quantiles([came[key] - at for key, at in sent.items() if began <= at < ended], n=100)[98]
    )


def _on_disk(load: _Load) -> dict[str, _Seen]:
    """A worker that hangs, one that is stopped, and a disk for logs that is full."""
    path = load.config("json")
    logs, hang = load.place / "logs", load.place / "hang"
    logs.mkdir()
    # A user who may not mount may do so as the root of a user namespace.
    alone = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    mounted = f'mount -t tmpfs -o size=16m tmpfs "{logs}" && exec "$@" >"{logs}/log" 2>&1'
    program = [*alone, "sh", "-c", mounted, "sh", *load.program()]
    with Daemon(path, *_WORKERS, program=program) as daemon:
        ballast = Path(f"/proc/{daemon.process.pid}/root{logs}/ballast")

        def fill() -> None:
            with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
                while file.write(bytes(4096)):
                    pass

        def restarts() -> float:
            return float(daemon.worker(_VICTIM)["restarts"])

        def stop() -> None:
            os.kill(daemon.worker(_VICTIM)["pid"], signal.SIGSTOP)

        def back() -> None:
            wait_for(lambda: daemon.worker(_VICTIM)["ready"], "the restart")

        def unhang() -> None:
            hang.unlink()
            back()

        faults = [
            _Fault("worker hangs", hang.touch, unhang, restarts, _HANGS_S),
            _Fault("worker stopped", stop, back, restarts, _STOPPED_S),
            _Fault("logs, disk full", fill, ballast.unlink, lambda: _dropped(daemon), load.times.fault),
        ]
        return load.under(daemon, faults)


def _to_a_pipe(load: _Load) -> dict[str, _Seen]:
    """Logs to a pipe that is not read."""
    source, target = os.pipe()
    fcntl.fcntl(target, fcntl.F_SETPIPE_SZ, 4096)
    with ExitStack() as stack:
        stack.callback(os.close, source)
        stack.callback(os.close, target)
        reader = stack.enter_context(_Reader(source, lambda: os.read(source, 65536)))
        path = load.config("json")
        daemon = stack.enter_context(Daemon(path, *_WORKERS, program=load.program(), output=target))
        return load.under(daemon, [_unread("logs, pipe not read", reader, daemon, load)])


def _to_the_journal(load: _Load) -> dict[str, _Seen]:
    """Logs to a journald that stands still."""
    path = load.config("journal")
    with ExitStack() as stack:
        end = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        end.bind(str(load.place / "journal"))
        reader = stack.enter_context(_Reader(end.fileno(), lambda: end.recv(65536)))
        daemon = stack.enter_context(Daemon(path, *_WORKERS, program=load.program()))
        return load.under(daemon, [_unread("logs, journald stands still", reader, daemon, load)])


def _unread(name: str, reader: _Reader, daemon: Daemon, load: _Load) -> _Fault:
    return _Fault(name, reader.stop, reader.go, lambda: _dropped(daemon), load.times.fault)


class _Reader(threading.Thread):
    """Reads the log as long as it is not stopped."""

    def __init__(self, descriptor: int, read: Callable[[], bytes]) -> None:
        super().__init__(daemon=True)
        self._descriptor = descriptor
        self._read = read
        self._reads, self._ended = threading.Event(), threading.Event()
        self.stop, self.go = self._reads.clear, self._reads.set

    def run(self) -> None:
        while not self._ended.is_set():
            if self._reads.wait(0.05) and select.select([self._descriptor], [], [], 0.05)[0]:
                self._read()

    def __enter__(self) -> Self:
        self.go()
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.join()


def _dropped(daemon: Daemon) -> float:
    """How many lines were lost so far, of all workers."""
    url = f"http://127.0.0.1:{daemon.worker('endpoint')['published']}/metrics"
    with urllib.request.urlopen(url, timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return sum(
        float(line.rpartition(" ")[2])
        for line in lines
        if line.startswith("pipelined_log_messages_dropped_total{")
    )

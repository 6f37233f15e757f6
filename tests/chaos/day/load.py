"""The load of a day: events all the time, at a rate, whatever happens meanwhile."""

from __future__ import annotations

import contextlib
import datetime as dt
import itertools
import random
import shutil
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

from chaos.day.hosts import Ground
from chaos.day.supply import Supplies
from flow import MARK, Marked, event, pipelinectl_command
from pipelined.config import Config, load
from pipelined.errors import FencedError, UnavailableError
from pipelined.local.fileserver import file_path
from pipelined.local.generator import Day
from pipelined.sources.file import load_file

__all__ = ["Feeder", "canary_ids"]

_TICK_S = 1.0
_MOST_AT_ONCE = 3_000
#: Small files: the disks and cores of one machine are shared by all that runs here.
_LARGEST = 12_000
#: Of the ticks: their file is loaded a second time, from its beginning.
_TWICE = 0.04
#: Attachments that fail in a way that matters to recovery, on top of the generator's: fault → each second.
_FAULTS = {"flaky-1": 1.0, "flaky-2": 0.5, "cut-1": 0.5, "stall-1": 0.2, "ratelimit-1": 0.3, "wrongtype": 0.1}
#: A day generated at once; the next one follows with another seed.
_DAY_EVENTS = 50_000
_CANARIES = 12


class Feeder(threading.Thread):
    """Loads events until ``stop``, or feeds them to the sources of the day.

    ``lines`` counts those that were loaded from files; ``error`` is what ended it.
    """

    def __init__(self, ground: Ground) -> None:
        super().__init__(daemon=True, name="feeder")
        self.lines = 0
        self.error: BaseException | None = None
        self._ground = ground
        self._rate = ground.plan.rate
        self._config: Config = load(ground.hosts[0].config_file, environ={}).config
        self._folder = ground.folder / "events"
        self._folder.mkdir(exist_ok=True)
        self._lock = threading.Lock()
        self._making = threading.Lock()
        self._names = itertools.count(1)
        self._rng = random.Random(ground.plan.seed)
        self._day = self._events()
        self._supplies = Supplies(ground.plan.source, self._config, ground.plan.seed)
        self._stopped = threading.Event()

    def run(self) -> None:
        """Load, catching up what an outage held up."""
        began, made = time.monotonic(), 0
        try:
            self._supplies.start()
            while not self._stopped.wait(_TICK_S):
                wanted = min(_MOST_AT_ONCE, int((time.monotonic() - began) * self._rate) - made)
                made += wanted
                if self._supplies:
                    self._supply(wanted)
                else:
                    self._load_some(wanted)
            self._supplies.finish()
        except BaseException as error:  # noqa: BLE001 - told by whoever joins it
            self.error = error

    def _supply(self, count: int) -> None:
        lines = self._lines(count)
        for _ in range(2 if self._rng.random() < _TWICE else 1):
            self._supplies.give(lines)

    def _load_some(self, count: int) -> None:
        path = self._write(count)
        # A copy, because a file that is loaded again is known by its name, and nothing is done.
        copies = [path.with_suffix(".again")] if self._rng.random() < _TWICE else []
        for copy in copies:
            shutil.copyfile(path, copy)
        for each in (path, *copies):
            self._load(each)
            each.unlink()

    def stop(self) -> None:
        """End after the file in hand."""
        self._stopped.set()
        self.join(300)
        if self.error is not None:
            raise self.error
        if self.is_alive():
            raise UnavailableError("the load did not end within 300 s: Kafka takes no events")

    def canaries(self, ids: Sequence[str], by: str = "") -> None:
        """Load an event of each id, in one transaction, over all partitions. Blocks in an outage.

        ``by`` is the source that is fed with them, by default they are loaded from a file.
        """
        if by:
            self._supplies.put(by, [event(each, subtype="noteAdded") for each in ids])
            return
        path = self._folder / f"canary-{next(self._names)}.jsonl"
        path.write_bytes(b"".join(event(each, subtype="noteAdded") + b"\n" for each in ids))
        self._load(path)
        path.unlink()

    def killed_command(self, seconds: float) -> int:
        """`pipelinectl load` of a file, killed after so long, then again to its end; the number of kills."""
        path = self._write(4_000)
        command = pipelinectl_command("--config", self._ground.hosts[0].config_file, "load", path)
        environment = Marked().environment | {MARK: self._ground.hosts[0].mark}
        log = (self._ground.folder / "loader.log").open("ab")
        kills = 0
        with log:
            for patience in (seconds, 120.0):
                with subprocess.Popen(command, stdout=log, stderr=log, env=environment) as process:
                    try:
                        process.wait(patience)
                    except subprocess.TimeoutExpired:
                        process.send_signal(signal.SIGKILL)
                        kills += 1
            # What neither of them managed.
            self._load(path)
        path.unlink()
        return min(kills, 1)

    def _write(self, count: int) -> Path:
        path = self._folder / f"events-{next(self._names)}.jsonl"
        path.write_bytes(b"".join(line + b"\n" for line in self._lines(count)))
        return path

    def _lines(self, count: int) -> list[bytes]:
        with self._making:  # two threads load
            return [*itertools.islice(self._day, count), *self._faulty()]

    def _load(self, path: Path) -> None:
        """All of the file, however often it takes: a load that goes on begins behind what is in."""
        with path.open("rb") as opened:
            lines = sum(1 for line in opened if line.strip())
        while True:
            # Fenced where the brokers gave up its transaction: the same command again, says the error.
            with contextlib.suppress(UnavailableError, FencedError):
                if load_file(self._config, str(path)).complete:
                    break
            time.sleep(0.2)
        with self._lock:
            self.lines += lines

    def _events(self) -> Iterator[bytes]:
        for number in itertools.count():
            seed = self._ground.plan.seed * 1000 + number
            start = dt.datetime.now(dt.UTC)
            yield from Day(_DAY_EVENTS, seed, self._ground.files.url, start=start, largest=_LARGEST).lines()

    def _faulty(self) -> Iterator[bytes]:
        for fault, rate in _FAULTS.items():
            if self._rng.random() < rate * _TICK_S:
                path = file_path(fault, 3_000, self._rng.getrandbits(48), "GENERIC.pdf")
                yield event(str(uuid.uuid4()), [self._ground.files.url + path])


def canary_ids() -> list[str]:
    """New trace ids, so many that each partition has one."""
    return [str(uuid.uuid4()) for _ in range(_CANARIES)]

"""Load and worker processes for tests of partitions that move."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Self

from confluent_kafka import Consumer, Producer

import pipelined
from pipelined.config.tree import Config
from pipelined.crashpoints import VARIABLE, Point
from pipelined.kafka.groups import members
from pipelined.kafka.leaving import leave
from pipelined.kafka.settings import Names
from pipelined.stages.contract import Stream
from waiting import until

__all__ = ["PARTITIONS", "RATE", "SESSION_S", "Load", "Workers"]

SCRIPT = Path(__file__).with_name("rebalance_worker.py")
PARTITIONS = 6
SESSION_S = 6.0
RATE = 600  # records a second, over all partitions


class Load:
    """Numbered records at a steady rate into ``pending``, and when each of them arrived in ``cached``."""

    def __init__(self, config: Config) -> None:
        self.sent = 0
        self.arrivals: dict[int, list[float]] = defaultdict(list)  # by the partition they came from
        self.seen: Counter[bytes] = Counter()
        self._config = config
        self._names = Names(config)
        self._enough = threading.Event()
        self._over = threading.Event()
        self._threads = [threading.Thread(target=each, daemon=True) for each in (self._send, self._read)]

    def _send(self) -> None:
        producer = Producer({"bootstrap.servers": self._config.kafka.bootstrap, "linger.ms": 5})
        topic = self._names.topic(Stream.PENDING)
        began = time.monotonic()
        while not self._enough.wait(0.01):
            while self.sent < (time.monotonic() - began) * RATE:
                producer.produce(topic, b"%d" % self.sent, partition=self.sent % PARTITIONS)
                self.sent += 1
            producer.poll(0)
        assert producer.flush(30) == 0

    def _read(self) -> None:
        consumer = Consumer(
            {
                "bootstrap.servers": self._config.kafka.bootstrap,
                "group.id": f"{self._config.domain}.watch",
                "isolation.level": "read_committed",
                "auto.offset.reset": "earliest",
                "fetch.wait.max.ms": 20,
            }
        )
        consumer.subscribe([self._names.topic(Stream.CACHED)])
        while not self._over.is_set():
            for message in consumer.consume(1000, 0.05):
                if message.error() is None:
                    ((_, number),) = message.headers() or []
                    self.arrivals[int(number)].append(time.monotonic())
                    self.seen[message.value() or b""] += 1
        consumer.close()

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        until(lambda: self.sent > 0)
        return self

    def __exit__(self, *about: object) -> None:
        self._enough.set()
        self._over.set()
        for thread in self._threads:
            thread.join()

    def finish(self) -> None:
        """Send no more, wait for all, and a moment more for what came twice."""
        self._enough.set()
        self._threads[0].join()
        until(lambda: len(self.seen) >= self.sent, f"{self.sent} were sent")
        time.sleep(1.0)
        assert set(self.seen) == {b"%d" % number for number in range(self.sent)}, "nothing is lost"
        assert [value for value, count in self.seen.items() if count > 1] == [], "nothing is doubled"

    def gaps(self, since: float) -> dict[int, float]:
        """The longest time without an arrival from each input partition, after a moment."""
        longest = {}
        for number in range(PARTITIONS):
            arrived = [at for at in list(self.arrivals[number]) if at > since]
            times = [since, *arrived, time.monotonic()]
            longest[number] = max(later - at for at, later in itertools.pairwise(times))
        return longest


class Workers:
    """The worker processes of one test."""

    def __init__(self, config: Config, folder: Path) -> None:
        self._config = config
        self._folder = folder
        self._armed = folder / "armed"
        self._armed.mkdir()
        self._running: dict[int, subprocess.Popen[bytes]] = {}

    def start(self, *indexes: int) -> None:
        """Start the processes with these indexes, with new lives and the old identities."""
        for index in indexes:
            order = {
                "bootstrap": self._config.kafka.bootstrap,
                "domain": self._config.domain,
                "session_timeout_s": SESSION_S,
                "index": index,
            }
            tests = Path(__file__).parents[1]
            paths = os.pathsep.join(map(str, (Path(pipelined.__file__).parents[1], tests)))
            with (self._folder / f"worker-{index}.log").open("ab") as log:
                self._running[index] = subprocess.Popen(
                    [sys.executable, str(SCRIPT), json.dumps(order)],
                    stderr=log,
                    env=os.environ | {"PYTHONPATH": paths, VARIABLE: str(self._armed)},
                )

    def arm(self, point: Point) -> None:
        """The next of them that comes by this point kills itself."""
        (self._armed / f"download:{point.label}").touch()

    def killed(self, index: int) -> bool:
        return self._running[index].poll() == -signal.SIGKILL

    def send(self, index: int, number: signal.Signals) -> None:
        self._running[index].send_signal(number)

    def end(self, index: int, number: signal.Signals = signal.SIGTERM) -> int:
        """Send it a signal and wait for its end; its exit code."""
        process = self._running.pop(index)
        process.send_signal(number)
        return process.wait(30)

    def leave(self, index: int) -> None:
        """End it for good, as an operator does."""
        assert self.end(index) == 0
        names = Names(self._config)
        instance = names.instance("download", index)
        assert leave(self._config, names.group("download"), [instance]) == [instance]

    def share(self, *indexes: int) -> None:
        """Wait until these have all partitions between them, as evenly as it goes.

        One that has ended is started again, as its supervisor would.
        """

        def shared() -> bool:
            self.start(*(index for index in indexes if self._running[index].poll() is not None))
            found = {each.index: len(each.partitions) for each in members(self._config, ["download"])}
            most = -(-PARTITIONS // len(indexes))
            return found.keys() == set(indexes) and all(found.values()) and max(found.values()) <= most

        until(shared, f"{indexes} share the partitions")

    def log(self, index: int) -> str:
        return (self._folder / f"worker-{index}.log").read_text()

    def kill(self) -> None:
        """End what is left."""
        for index in list(self._running):
            self.send(index, signal.SIGCONT)
            self.end(index, signal.SIGKILL)

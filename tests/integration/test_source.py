"""The worker of a source on the real Kafka: each row once and in order, and one host at a time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import pipelined
from kafka_tools import declared, read, small
from pipelined.config.tree import Config
from pipelined.crashpoints import VARIABLE, Point
from pipelined.kafka.checkpoints import read_checkpoint
from pipelined.stages.contract import Stream
from source_parts import Numbered
from waiting import until

pytestmark = pytest.mark.timeout(120)

SCRIPT = Path(__file__).with_name("source_worker.py")
WORKER = "eventhouse-poller"
SESSION_S = 4.0


@pytest.fixture
def config(kafka_bootstrap: str, domain: str) -> Iterator[Config]:
    with declared(small(kafka_bootstrap, domain, 2, session_timeout_s=SESSION_S)) as made:
        yield made


def rows(config: Config) -> list[int]:
    """What is committed on events.raw, as it was produced: by time, then by key and place."""
    return sorted(int(message.value) for message in read(config, Stream.RAW))


def each_once(config: Config, count: int) -> None:
    """Every row once, and those of a partition in the order of the position."""
    found = read(config, Stream.RAW)
    assert sorted(int(message.value) for message in found) == list(range(count))
    for number in range(2):
        of_partition = [int(message.value) for message in found if message.partition == number]
        assert of_partition == sorted(of_partition)
    assert {message.header("source") for message in found} <= {"eventhouse"}


class Hosts:
    """Worker processes, one for each host."""

    def __init__(self, config: Config, folder: Path) -> None:
        self._config = config
        self._folder = folder
        self.rows = folder / "rows"
        self.points = folder / "points"
        self.points.mkdir()
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.grow(0)

    def grow(self, count: int) -> None:
        """The source has so many rows from now on."""
        new = self.rows.with_suffix(".new")
        new.write_text(str(count))
        new.rename(self.rows)

    def start(self, host: str, **more: Any) -> None:
        order = {
            "bootstrap": self._config.kafka.bootstrap,
            "domain": self._config.domain,
            "session_timeout_s": SESSION_S,
            "host": host,
            "rows": str(self.rows),
        } | more
        paths = os.pathsep.join(map(str, (Path(pipelined.__file__).parents[1], Path(__file__).parents[1])))
        with self.log(host).open("ab") as log:
            self.running[host] = subprocess.Popen(
                [sys.executable, str(SCRIPT), json.dumps(order)],
                stderr=log,
                env=os.environ | {"PYTHONPATH": paths, VARIABLE: str(self.points)},
            )

    def log(self, host: str) -> Path:
        return self._folder / f"{host}.log"

    def says(self, host: str, text: str) -> bool:
        return text in self.log(host).read_text()

    def end(self, host: str, number: signal.Signals = signal.SIGTERM) -> int:
        process = self.running.pop(host)
        process.send_signal(number)
        return process.wait(30)

    def close(self) -> None:
        for host, process in list(self.running.items()):
            process.send_signal(signal.SIGCONT)
            self.end(host, signal.SIGKILL)


@pytest.fixture
def hosts(config: Config, tmp_path: Path) -> Iterator[Hosts]:
    made = Hosts(config, tmp_path)
    yield made
    made.close()


def position(config: Config) -> int:
    return int(read_checkpoint(config, Numbered.key) or 0)


POINTS = [point for point in Point if WORKER in point.workers]


@pytest.mark.parametrize("point", POINTS, ids=lambda point: point.label)
def test_a_worker_killed_at(config: Config, hosts: Hosts, point: Point) -> None:
    armed = hosts.points / f"{WORKER}:{point.label}"
    hosts.grow(400)
    if point not in (Point.POSITIONED, Point.DRAINING, Point.DRAINED):
        armed.write_text("3")
    else:
        armed.touch()
    hosts.start("h1")
    if point in (Point.DRAINING, Point.DRAINED):
        until(lambda: position(config) > 0, hosts.log("h1").read_text())
        hosts.running["h1"].send_signal(signal.SIGTERM)
    assert hosts.running.pop("h1").wait(30) == -signal.SIGKILL, hosts.log("h1").read_text()
    assert not armed.exists()
    hosts.start("h1")
    until(lambda: position(config) == 400, hosts.log("h1").read_text())
    hosts.grow(430)
    until(lambda: position(config) == 430)
    assert hosts.end("h1") == 0
    each_once(config, 430)

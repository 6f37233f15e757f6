"""The worker of a source on the real Kafka: each row once and in order, and one host at a time."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

import pipelined
from kafka_tools import Working, declared, numbered, produce, read, small
from pipelined.config.sources import Sources
from pipelined.config.tree import Config, Kafka
from pipelined.crashpoints import VARIABLE, Point
from pipelined.errors import UnavailableError
from pipelined.kafka import checkpoints
from pipelined.kafka.checkpoints import read_checkpoint
from pipelined.kafka.lag import Lags
from pipelined.kafka.settings import Names, producer_settings
from pipelined.kafka.transactions import Transactor
from pipelined.stages.contract import Output, Stream
from pipelined.stats import source_metrics
from pipelined.stats.slots import Child
from pipelined.workers.pressure import Pressure
from pipelined.workers.source import SourceRuntime
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


def test_told_to_stop_it_finishes_what_is_in_hand_and_ends_well(config: Config, hosts: Hosts) -> None:
    hosts.grow(100_000)
    hosts.start("h1", page=500)
    until(lambda: position(config) > 5000)
    began = time.monotonic()
    assert hosts.end("h1") == 0
    assert time.monotonic() - began < 10
    count = position(config)
    each_once(config, count)
    hosts.grow(count + 10)
    hosts.start("h1", page=500)
    until(lambda: position(config) == count + 10)
    each_once(config, count + 10)


def test_a_host_that_dies_is_followed_by_the_other_one(config: Config, hosts: Hosts) -> None:
    hosts.grow(1_000_000)
    hosts.start("h1", fetch_s=0.01)
    until(lambda: position(config) > 0)
    hosts.start("h2", fetch_s=0.01)
    until(lambda: hosts.says("h2", "stands by"))
    hosts.end("h1", signal.SIGKILL)
    before = position(config)
    until(lambda: hosts.says("h2", "on from where it was left"))
    until(lambda: position(config) > before)
    hosts.start("h1")
    until(lambda: hosts.log("h1").read_text().count("stands by") == 1, "it does not take it back")
    assert (hosts.end("h2"), hosts.end("h1")) == (0, 0)
    each_once(config, position(config))


def test_a_zombie_that_wakes_up_is_fenced_ends_its_turn_and_stands_by(config: Config, hosts: Hosts) -> None:
    hosts.grow(1_000_000)
    hosts.start("h1", fetch_s=0.01)
    until(lambda: position(config) > 0)
    hosts.running["h1"].send_signal(signal.SIGSTOP)
    hosts.start("h2", fetch_s=0.01)
    until(lambda: hosts.says("h2", "on from where it was left"))
    before = position(config)
    until(lambda: position(config) > before)
    hosts.running["h1"].send_signal(signal.SIGCONT)
    until(lambda: hosts.says("h1", "stands by"), hosts.log("h1").read_text())
    assert hosts.running["h1"].poll() is None, "its turn ended, not its process"
    before = position(config)
    until(lambda: position(config) > before, "the other one was not disturbed")
    assert hosts.end("h2") == 0
    until(lambda: hosts.says("h1", "on from where it was left"), "and it takes over again")
    assert hosts.end("h1") == 0
    each_once(config, position(config))


@contextlib.contextmanager
def reading(config: Config, source: Numbered) -> Iterator[Working]:
    """A turn at the source in this process."""
    lags = Lags(config, config.sources.pause_stages)

    def make(stats: Child, should_stop: Callable[[], bool]) -> SourceRuntime:
        return SourceRuntime(
            config,
            source=source,
            transactor=Transactor(config, Names(config).group(WORKER), stats.beat),
            pressure=Pressure(config.sources, lags.ask),
            stats=stats,
            should_stop=should_stop,
        )

    worker = Working(make)
    try:
        yield worker.ready()
    finally:
        worker.stop()


def test_two_that_both_believe_in_themselves_double_nothing(config: Config, hosts: Hosts) -> None:
    """As if no election were held: each fences the other whenever it begins."""
    hosts.grow(3000)
    hosts.start("h1", fetch_s=0.01)
    until(lambda: position(config) > 100)
    with reading(config, Numbered(lambda: 3000, page=20)) as worker:
        until(lambda: position(config) == 3000)
        assert worker.error is None
    until(lambda: hosts.says("h1", "another process took over"))
    assert hosts.end("h1") == 0
    each_once(config, 3000)


def test_a_position_behind_the_open_transaction_of_another_is_not_overlooked(config: Config) -> None:
    """It cannot be read before the other one has ended, and an older one would be found instead."""
    with reading(config, Numbered(lambda: 100)):
        until(lambda: position(config) == 100)
    other = Producer(producer_settings(config, f"{config.domain}.other"))
    other.init_transactions(30)
    other.begin_transaction()
    other.produce(Names(config).topic("checkpoints"), b"x", b"other")
    assert other.flush(30) == 0
    ours = Transactor(config, Names(config).group(WORKER), lambda: None)
    assert ours.begin_session(lambda: False)
    rows = [Output(Stream.RAW, b"k", b"%d" % number, []) for number in range(100, 150)]
    ours.run([*rows, Output("checkpoints", Numbered.key.encode(), b"150", [])])
    ours.close()
    source = Numbered(lambda: 200)
    ending = threading.Timer(1.5, other.commit_transaction, [30])
    ending.start()
    with reading(config, source):
        until(lambda: position(config) == 200)
    ending.join()
    assert source.resumed == [b"150"]
    assert sorted(int(message.value) for message in read(config, Stream.RAW)) == list(range(200))


def test_a_transaction_that_never_ends_is_not_waited_for_without_end(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "_ABORT_INTERVAL", -4.5)
    other = Producer(producer_settings(config, f"{config.domain}.other"))
    other.init_transactions(30)
    other.begin_transaction()
    other.produce(Names(config).topic("checkpoints"), b"x", b"other")
    assert other.flush(30) == 0
    with pytest.raises(UnavailableError, match="has not ended"):
        read_checkpoint(config, Numbered.key)
    other.abort_transaction(30)
    assert read_checkpoint(config, Numbered.key) is None


def test_a_position_is_found_however_much_was_written_since(config: Config) -> None:
    produce(config, "checkpoints", [b"old", b"new"], key=b"mine")
    produce(config, "checkpoints", (b"%d" % number for number in range(2500)), key=b"other")
    assert read_checkpoint(config, "mine") == b"new"
    assert read_checkpoint(config, "other") == b"2499"
    assert read_checkpoint(config, "nobodys") is None


def test_the_lag_is_told_whether_anybody_works_there_or_not(config: Config) -> None:
    lags = Lags(config, ("event-ingester", "download", "retry-scheduler"))
    assert lags.ask() == {"event-ingester": 0, "download": 0, "retry-scheduler": 0}
    produce(config, Stream.RAW, numbered(30))
    produce(config, Stream.PENDING, numbered(7))
    produce(config, Stream.RETRY, numbered(2), partition=0)
    assert lags.ask() == {"event-ingester": 30, "download": 7, "retry-scheduler": 2}
    topic = Names(config).topic(Stream.RAW)
    consumer = Consumer(
        {"bootstrap.servers": config.kafka.bootstrap, "group.id": f"{config.domain}.event-ingester"}
    )
    consumer.commit(offsets=[TopicPartition(topic, 0, 10)], asynchronous=False)
    consumer.close()
    assert lags.ask()["event-ingester"] == 20


def test_without_brokers_the_lag_is_not_known() -> None:
    config = Config(kafka=Kafka(bootstrap="127.0.0.1:1"))
    with pytest.raises(UnavailableError, match="how far behind"):
        Lags(config, ("event-ingester",)).ask(timeout=0.5)


def test_it_is_held_while_the_ingester_is_behind_and_goes_on_when_it_has_caught_up(config: Config) -> None:
    config = dataclasses.replace(config, sources=Sources(pause_lag=300, resume_lag=100, lag_seconds=0.1))
    count = 1_000_000
    source = Numbered(lambda: count, page=20)
    with reading(config, source) as worker:
        stats = worker.stats
        until(lambda: stats.says.startswith("held back: event-ingester is "))
        assert stats.gauge(source_metrics.HELD) == 1
        until(lambda: source.next == position(config), "what was fetched is committed all the same")
        held_at = position(config)
        time.sleep(0.5)  # in which it could go on
        assert position(config) == held_at == source.next
        assert stats.gauge(source_metrics.LAG) >= 300
        catch_up(config, held_at - 200)
        time.sleep(0.5)
        assert position(config) == held_at, "not yet: the resume lag is lower than the pause lag"
        catch_up(config, held_at)
        until(lambda: position(config) > held_at)
    each_once(config, position(config))


def catch_up(config: Config, rows: int) -> None:
    """Commit as the ingester does, so that about so many rows are done."""
    topic = Names(config).topic(Stream.RAW)
    consumer = Consumer({"bootstrap.servers": config.kafka.bootstrap, "group.id": "ends"})
    ends = [consumer.get_watermark_offsets(TopicPartition(topic, n), timeout=30)[1] for n in range(2)]
    consumer.close()
    left = max(0, position(config) - rows)
    ingester(config, [TopicPartition(topic, n, max(0, end - left // 2)) for n, end in enumerate(ends)])


def ingester(config: Config, places: list[TopicPartition]) -> None:
    """Commit these offsets in the ingester's group."""
    group = Names(config).group("event-ingester")
    consumer = Consumer({"bootstrap.servers": config.kafka.bootstrap, "group.id": group})
    consumer.commit(offsets=places, asynchronous=False)
    consumer.close()

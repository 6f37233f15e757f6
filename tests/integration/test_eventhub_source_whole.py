"""The Event Hub's source with its runtime: whenever it is stopped, events.raw has every event once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hubs import Hub, event
from kafka_tools import Working, declared, read, small
from pipelined.config import Config
from pipelined.kafka.checkpoints import read_checkpoint
from pipelined.kafka.transactions import Transactor
from pipelined.local.kafka import Cluster
from pipelined.sources.eventhub import EventhubSource
from pipelined.sources.hub_position import read_position
from pipelined.stats.slots import Child
from pipelined.workers.pressure import Pressure
from pipelined.workers.source import SourceRuntime
from realparts import local_kafka_missing, require
from waiting import until

EVENTS = 5000
TURNS = 5


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    require("the local Kafka", local_kafka_missing())
    with Cluster(sasl=True) as running:
        yield running


def reading(config: Config) -> Working:
    """The worker's loop in a thread."""

    def make(stats: Child, should_stop: Callable[[], bool]) -> SourceRuntime:
        return SourceRuntime(
            config,
            source=EventhubSource(config),
            transactor=Transactor(config, f"{config.domain}.eventhub-reader", stats.beat),
            pressure=Pressure(config.sources, dict),
            stats=stats,
            should_stop=should_stop,
        )

    return Working(make).ready()


def test_stopped_and_taken_over_again_and_again_it_brings_every_event_once(
    cluster: Cluster, tmp_path: Path, domain: str
) -> None:
    hub = Hub(cluster, f"{domain}-hub", tmp_path, partitions=3)
    given = hub.config(eventhub__page_records=200)
    config = dataclasses.replace(small(cluster.bootstrap, domain), eventhub=given.eventhub)
    key = EventhubSource(config).key

    def position() -> int:
        value = read_checkpoint(config, key)
        places = read_position(value).partitions.values() if value else ()
        return sum(place.next for place in places)

    def past(offset: int) -> Callable[[], bool]:
        return lambda: position() >= offset

    with declared(config):
        workers: list[Working] = []
        for turn in range(TURNS):
            whole = (turn + 1) * EVENTS // TURNS
            hub.put(event(number) for number in range(turn * EVENTS // TURNS, whole))
            # The next one takes over while the one before it reads: that one is fenced.
            workers.append(reading(config))
            until(past(whole - EVENTS // TURNS // 2), "nothing is read")
            for former in workers[:-1]:
                former.stop()
            workers = workers[-1:]
        until(past(EVENTS), "not all is read")
        workers[0].stop()
        messages = read(config, "events_raw")
    assert len(messages) == EVENTS
    assert len({message.key for message in messages}) == EVENTS
    assert {message.header("source") for message in messages} == {"eventhub"}
    assert len({message.header("origin") for message in messages}) == EVENTS

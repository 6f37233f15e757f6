"""Each event once, whatever moves: rebalances, successors, late events, and a growth of the topics."""

from __future__ import annotations

import dataclasses
import json
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager

import msgspec
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewPartitions

from kafka_tools import DEADLINE, Working, committed, declared, produce, read, small, working
from pipelined.config.tree import Config
from pipelined.config.work import Urls
from pipelined.errors import ConfigError
from pipelined.fetch.policy import UrlPolicy
from pipelined.kafka import topics
from pipelined.kafka.groups import members
from pipelined.kafka.history import History
from pipelined.kafka.layout import Layout, read_layout, write_layout
from pipelined.kafka.leaving import leave
from pipelined.kafka.partitioner import partition_of
from pipelined.kafka.settings import Names
from pipelined.stages.contract import Stream
from pipelined.stages.failures import Envelope
from pipelined.stages.ingest import IngestStage
from pipelined.stages.relocate import Relocating
from records import event, slot
from waiting import until

HOUR = 3_600_000
NOW = int(time.time() * 1000)


@pytest.fixture
def config(kafka_bootstrap: str, domain: str) -> Iterator[Config]:
    with declared(small(kafka_bootstrap, domain)) as made:
        yield made


def names(count: int) -> list[str]:
    return [str(uuid.uuid4()) for _ in range(count)]


def send(config: Config, given: Sequence[str], arrival: int = NOW, partitions: int | None = None) -> None:
    """Events as a producer that knows of so many partitions puts them there."""
    count = partitions or Names(config).section(Stream.RAW).partitions
    for number in range(count):
        mine = [name for name in given if partition_of(name.encode(), count) == number]
        for name in mine:
            value = json.dumps(event(traceId=name)).encode()
            produce(config, Stream.RAW, [value], partition=number, key=name.encode(), timestamp=arrival)


def ingesting(config: Config, index: int = 0, host: str = "h1") -> AbstractContextManager[Working]:
    config = dataclasses.replace(config, kafka=dataclasses.replace(config.kafka, host=host))
    history = History(config, config.ingest.dedup_horizon_hours, lambda: None)
    stage = IngestStage(
        domain=config.domain,
        horizon_hours=config.ingest.dedup_horizon_hours,
        largest=1 << 20,
        policy=UrlPolicy(Urls()),
        envelope=Envelope("event-ingester", "g", host),
        history=history,
        stats=slot(),
    )
    whole = Relocating(stage, lambda: history.moving, partition_of)
    return working(config, whole, index=index, stream=Stream.RAW, dead_stream=Stream.EVENTS_DLQ)


def admitted(config: Config) -> Counter[str]:
    return Counter((message.key or b"").decode() for message in read(config, Stream.INGESTED))


def idle(config: Config) -> None:
    """Wait until everything on events.raw is judged."""

    def done() -> bool:
        ends = {message.partition: message.offset + 1 for message in read(config, Stream.RAW)}
        places = committed(config, "event-ingester", Stream.RAW)
        return all(places[number][0] >= end for number, end in ends.items())

    until(done, "events are left on events.raw")


def left(config: Config) -> None:
    """The ingesters leave for good, as `pipelinectl stop event-ingester` has it."""
    for member in members(config, ["event-ingester"]):
        leave(config, member.group, [member.instance])
    until(lambda: not members(config, ["event-ingester"]))


def grown(config: Config, partitions: int) -> Config:
    section = dataclasses.replace(config.topics.events_raw, partitions=partitions)
    return dataclasses.replace(
        config,
        topics=dataclasses.replace(config.topics, events_raw=section, events_ingested=section),
    )


def grow_by_hand(config: Config, stream: str, partitions: int) -> None:
    admin = AdminClient({"bootstrap.servers": config.kafka.bootstrap})
    topic = Names(config).topic(stream)
    admin.create_partitions([NewPartitions(topic, partitions)])[topic].result(DEADLINE)
    until(lambda: len(admin.list_topics(topic).topics[topic].partitions) == partitions)


def test_keys_go_where_producers_put_them(config: Config) -> None:
    keys = [*(n.encode() for n in names(50)), b"", b"a", b"ab", b"abc", "ünïcode".encode(), b"\xff" * 9]
    producer = Producer({"bootstrap.servers": config.kafka.bootstrap, "partitioner": "murmur2_random"})
    for key in keys:
        producer.produce(Names(config).topic(Stream.PENDING), key, key)
    assert producer.flush(DEADLINE) == 0
    for message in read(config, Stream.PENDING):
        if message.key:
            assert message.partition == partition_of(message.key, 2), message.key


def test_a_partition_takes_its_memory_along_to_another_ingester_and_back(config: Config) -> None:
    first = names(60)
    send(config, first)
    with ingesting(config, 0):
        idle(config)
        with ingesting(config, 1) as second:
            until(lambda: second.runtime._member.partitions, "nothing moved")
            later = names(20)
            send(config, [*first, *later, *later])
            idle(config)
        left(config)
    with ingesting(config, 0):
        send(config, [*first, *later])
        idle(config)
    assert admitted(config) == Counter([*first, *later])


def test_a_successor_knows_what_a_killed_one_admitted(config: Config) -> None:
    first = names(60)
    send(config, first)
    with ingesting(config) as killed:
        idle(config)
        with ingesting(config):  # the same ids: the first is fenced, as one that was killed
            send(config, first)
            idle(config)
            assert killed.ended() is not None
    assert admitted(config) == Counter(first)


def test_late_events_are_caught_within_the_horizon_and_taken_again_beyond_it(config: Config) -> None:
    morning, old, beyond = names(10), names(10), names(10)
    send(config, beyond, NOW - 50 * HOUR)
    send(config, morning, NOW - 23 * HOUR)
    with ingesting(config):
        idle(config)
        send(config, [*morning, *names(20)], NOW)
        send(config, [*old, *old], NOW - 40 * HOUR)  # sent again by a source with its old arrival
        send(config, morning, NOW - 30 * HOUR)
        idle(config)
    for _ in range(2):  # and by one that has to read it back
        with ingesting(config):
            send(config, [*morning, *old, *beyond], NOW)
            idle(config)
    found = admitted(config)
    assert [found[name] for name in morning] == [1] * 10
    assert [found[name] for name in old] == [1] * 10
    assert [found[name] for name in beyond] == [2] * 10


def test_the_event_topics_grow_and_no_duplicate_slips_through(config: Config) -> None:
    wanted = grown(config, 5)
    first, waiting = names(80), names(40)
    send(config, first)
    with ingesting(config):
        idle(config)
        with pytest.raises(ConfigError, match="is at work on h1"):
            topics.apply(wanted, topics.plan(wanted))
        assert len(topics.plan(wanted)) == 2
    left(config)
    send(config, waiting)  # nothing has to be drained
    topics.apply(wanted, topics.plan(wanted))
    assert topics.plan(wanted) == []
    assert read_layout(wanted) is not None
    send(wanted, [*first, *waiting])
    send(wanted, waiting, partitions=2)  # a producer that has not heard of it
    with ingesting(wanted):
        idle(wanted)
        send(wanted, [*first, *waiting])
        send(wanted, first, partitions=2)
        idle(wanted)
    with ingesting(wanted):
        send(wanted, [*first, *waiting])
        idle(wanted)
    assert admitted(wanted) == Counter([*first, *waiting])
    assert {m.partition for m in read(wanted, Stream.INGESTED)} == set(range(5))


def test_after_the_horizon_a_grown_topic_is_read_by_its_own_partitions_again(config: Config) -> None:
    first = names(20)
    send(config, first)
    with ingesting(config):
        idle(config)
    left(config)
    wanted = grown(config, 3)
    topics.apply(wanted, topics.plan(wanted))
    history = History(wanted, 24, lambda: None)
    assert sorted(k for n, keys, _, _ in history([2]) if n is None for k in keys) == sorted(
        name.encode() for name in first
    )
    assert history.moving[0] == 3
    assert history.moving[1] > NOW + 23 * HOUR
    layout = read_layout(wanted)
    assert layout is not None
    long_ago = NOW - 30 * HOUR
    write_layout(wanted, msgspec.structs.replace(layout, since=long_ago, newest=[long_ago] * 2))
    assert None in [number for number, _, _, _ in history([2])], "nothing has come since"
    produce(wanted, Stream.INGESTED, [b"v"], partition=2, key=b"next", timestamp=NOW)
    assert [number for number, _, _, _ in history([2])] == [2]


def test_a_growth_by_hand_is_refused_until_it_is_recorded(config: Config) -> None:
    first = names(40)
    send(config, first)
    with ingesting(config):
        idle(config)
    left(config)
    grow_by_hand(config, "events_raw", 4)
    wanted = grown(config, 4)
    with pytest.raises(ConfigError, match="declare what it has"):
        topics.check(config)
    grow_by_hand(config, "events_ingested", 4)
    with pytest.raises(ConfigError, match="grown past `pipelinectl topics apply`"):
        topics.check(wanted)
    with pytest.raises(ConfigError, match="stop event-ingester"), ingesting(wanted):
        pass
    left(config)
    topics.apply(wanted, topics.plan(wanted))
    topics.check(wanted)
    with ingesting(wanted):
        send(wanted, first)
        idle(wanted)
    assert admitted(wanted) == Counter(first)


def test_a_growth_while_an_ingester_works_ends_it_in_words(config: Config) -> None:
    with ingesting(config) as worker:
        send(config, names(10))
        idle(config)
        write_layout(config, Layout(4, Names(config).topic("events_ingested")))
        with pytest.raises(ConfigError, match="grown past"), ingesting(config, 1) as second:
            raise second.ended() or AssertionError("it ended well")
    assert worker.error is None

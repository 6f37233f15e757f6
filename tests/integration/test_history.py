"""What is read back of a partition is what is committed on it, within the horizon: on the real Kafka."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from confluent_kafka import Producer

from kafka_tools import DEADLINE, declared, produce, small, until
from pipelined.config.tree import Config
from pipelined.errors import UnavailableError
from pipelined.kafka.history import read_back
from pipelined.kafka.settings import Names
from pipelined.stages.contract import Stream

HOUR = 3_600_000
NOW = int(time.time() * 1000)


@pytest.fixture
def config(kafka_bootstrap: str, domain: str) -> Iterator[Config]:
    with declared(small(kafka_bootstrap, domain)) as made:
        yield made


@pytest.fixture
def writer(config: Config) -> Producer:
    producer = Producer(
        {
            "bootstrap.servers": config.kafka.bootstrap,
            "transactional.id": f"{config.domain}.writer",
            "transaction.timeout.ms": 60_000,
        }
    )
    producer.init_transactions(DEADLINE)
    return producer


def write(config: Config, writer: Producer, keys: range, arrival: int = NOW, *, partition: int = 0) -> None:
    """Keys in an open transaction, on the broker when it returns."""
    topic = Names(config).topic(Stream.INGESTED)
    for key in keys:
        writer.produce(topic, b"v", b"%d" % key, partition=partition, timestamp=arrival)
    assert writer.flush(DEADLINE) == 0


def transaction(
    config: Config,
    writer: Producer,
    keys: range,
    arrival: int = NOW,
    *,
    commit: bool = True,
    partition: int = 0,
) -> None:
    writer.begin_transaction()
    write(config, writer, keys, arrival, partition=partition)
    if commit:
        writer.commit_transaction(DEADLINE)
    else:
        writer.abort_transaction(DEADLINE)


def back(config: Config, hours: float = 24, partition: int = 0) -> list[tuple[int, int]]:
    read = read_back(config, Stream.INGESTED, hours, lambda: None)
    return [(int(key), arrival) for _, batch in read([partition]) for key, arrival in batch]


def keys(config: Config, hours: float = 24) -> list[int]:
    return [key for key, _ in back(config, hours)]


def test_an_empty_partition_has_no_history(config: Config, writer: Producer) -> None:
    transaction(config, writer, range(1), partition=1)
    until(lambda: back(config, partition=1))  # the new topic has its leaders
    assert back(config) == []


def test_all_that_is_committed_is_read_back_in_order_with_its_arrival(
    config: Config, writer: Producer
) -> None:
    for start in range(0, 3000, 1000):
        transaction(config, writer, range(start, start + 1000), NOW + start)
    assert back(config) == [(key, NOW + key // 1000 * 1000) for key in range(3000)]
    assert back(config, partition=1) == []


def test_what_was_aborted_is_not_part_of_it_though_it_is_the_end(config: Config, writer: Producer) -> None:
    transaction(config, writer, range(10))
    transaction(config, writer, range(10, 20), commit=False)
    assert keys(config) == list(range(10))
    transaction(config, writer, range(20, 30))
    assert keys(config) == [*range(10), *range(20, 30)]


def test_a_tail_of_nothing_but_markers_ends_the_reading_and_hides_nothing(
    config: Config, writer: Producer
) -> None:
    transaction(config, writer, range(5))
    for _ in range(120):  # more offsets without a record than are looked at first
        transaction(config, writer, range(99, 100), commit=False)
    assert keys(config) == list(range(5))


def test_a_partition_of_nothing_but_markers_has_no_history(config: Config, writer: Producer) -> None:
    transaction(config, writer, range(3), commit=False)
    assert keys(config) == []


def test_an_open_transaction_is_not_waited_for(config: Config, writer: Producer) -> None:
    transaction(config, writer, range(5))
    writer.begin_transaction()
    write(config, writer, range(5, 10))
    assert keys(config) == list(range(5))
    writer.abort_transaction(DEADLINE)


def test_only_the_horizon_is_read_counted_from_the_last_arrival_and_not_from_now(config: Config) -> None:
    last = NOW - 100 * HOUR  # after a long stop
    for age in range(30, -1, -1):
        produce(config, Stream.INGESTED, [b"v"], partition=0, key=b"%d" % age, timestamp=last - age * HOUR)
    assert keys(config, hours=24) == list(range(24, -1, -1))
    assert keys(config, hours=0.5) == [0]
    assert keys(config, hours=1000) == list(range(30, -1, -1))


def test_markers_that_are_younger_than_their_records_only_make_it_read_more(
    config: Config, writer: Producer
) -> None:
    last = NOW - 100 * HOUR  # a backlog: written now, arrived long ago
    for age in range(30, -1, -1):
        transaction(config, writer, range(age, age + 1), last - age * HOUR)
    found = keys(config, hours=24)
    assert found[-25:] == list(range(24, -1, -1))


def test_late_arrivals_at_the_end_do_not_shift_the_horizon_back(config: Config, writer: Producer) -> None:
    transaction(config, writer, range(1), NOW - 20 * HOUR)
    transaction(config, writer, range(1, 2), NOW)
    transaction(config, writer, range(2, 3), NOW - 40 * HOUR)
    assert {1, 0} <= set(keys(config, hours=24))


def test_reading_back_gives_signs_of_life(config: Config, writer: Producer) -> None:
    transaction(config, writer, range(10))
    beats: list[int] = []
    read = read_back(config, Stream.INGESTED, 24, lambda: beats.append(1))
    assert sum(len(batch) for _, batch in read([0])) == 10
    assert beats


def test_a_partition_that_is_not_there_is_said(config: Config) -> None:
    with pytest.raises(UnavailableError, match="could not be read back"):
        back(config, partition=77)


def test_several_partitions_are_read_at_once_each_with_its_own_keys(config: Config, writer: Producer) -> None:
    transaction(config, writer, range(10), partition=0)
    transaction(config, writer, range(100, 115), partition=1)
    read = read_back(config, Stream.INGESTED, 24, lambda: None)
    found: dict[int, list[int]] = {0: [], 1: []}
    for number, batch in read([0, 1]):
        found[number] += [int(key) for key, _ in batch]
    assert found == {0: list(range(10)), 1: list(range(100, 115))}

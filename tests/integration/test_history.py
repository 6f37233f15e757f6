"""What is read back of a partition is what is committed on it, within the horizon: on the real Kafka."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from kafka_tools import DEADLINE, declared, produce, small
from pipelined.config.tree import Config
from pipelined.errors import UnavailableError
from pipelined.kafka.history import History
from pipelined.kafka.settings import Names
from pipelined.stages.contract import Headers, Stream
from waiting import until

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
    found: list[tuple[int, int]] = []
    for number, names, arrivals, _ in History(config, hours, lambda: None)([partition]):
        assert number == partition
        found += zip(map(int, names), arrivals, strict=True)
    return found


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


def test_a_transaction_that_is_still_open_is_waited_for_and_then_known(
    config: Config, writer: Producer
) -> None:
    # Its offsets may be committed already, each partition's marker coming in its own time.
    transaction(config, writer, range(5))
    writer.begin_transaction()
    write(config, writer, range(5, 10))
    waiting = threading.Event()
    beats: list[float] = []

    def beat() -> None:
        beats.append(time.monotonic())
        if beats[-1] - beats[0] > 0.5:
            waiting.set()

    with ThreadPoolExecutor() as pool:
        reading = pool.submit(lambda: [k for _, names, _, _ in History(config, 24, beat)([0]) for k in names])
        assert waiting.wait(DEADLINE)
        assert not reading.done()
        writer.commit_transaction(DEADLINE)
        assert [int(key) for key in reading.result(DEADLINE)] == list(range(10))


def test_a_transaction_that_does_not_end_is_no_end_of_the_partition(
    config: Config, writer: Producer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelined.kafka.history._ABORT_INTERVAL", -4.0)
    transaction(config, writer, range(5))
    writer.begin_transaction()
    write(config, writer, range(5, 10))
    with pytest.raises(UnavailableError, match="has not ended"):
        keys(config)
    writer.abort_transaction(DEADLINE)
    assert keys(config) == list(range(5))


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
    read = History(config, 24, lambda: beats.append(1))
    assert sum(len(names) for _, names, _, _ in read([0])) == 10
    assert beats


def test_a_partition_that_is_not_there_is_said(config: Config) -> None:
    with pytest.raises(UnavailableError, match="could not be read back"):
        back(config, partition=77)


def test_several_partitions_are_read_at_once_each_with_its_own_keys(config: Config, writer: Producer) -> None:
    transaction(config, writer, range(10), partition=0)
    transaction(config, writer, range(100, 115), partition=1)
    found: dict[int | None, list[int]] = {0: [], 1: []}
    for number, names, _, _ in History(config, 24, lambda: None)([0, 1]):
        found[number] += map(int, names)
    assert found == {0: list(range(10)), 1: list(range(100, 115))}


def test_the_source_that_brought_each_is_read_back_with_it(config: Config) -> None:
    for header in (b"eventhouse", b"eventhub"):
        headers: Headers = [("trace_id", b"7"), ("source", header)]
        produce(config, Stream.INGESTED, [b"v"], partition=0, key=b"7", headers=headers, timestamp=NOW)
    produce(config, Stream.INGESTED, [b"v"], partition=0, key=b"8", timestamp=NOW)
    found = [source for *_, sources in History(config, 24, lambda: None)([0]) for source in sources]
    assert found == [b"eventhouse", b"eventhub", b""]


def test_what_was_deleted_within_the_horizon_is_said(
    config: Config, writer: Producer, caplog: pytest.LogCaptureFixture
) -> None:
    for age in range(12, -1, -1):
        transaction(config, writer, range(age, age + 1), NOW - age * HOUR)
    with caplog.at_level(logging.WARNING, "pipelined.kafka"):
        assert len(keys(config)) == 13
    assert not caplog.records
    admin = AdminClient({"bootstrap.servers": config.kafka.bootstrap})
    place = TopicPartition(Names(config).topic(Stream.INGESTED), 0, 10)
    admin.delete_records([place])[place].result(DEADLINE)
    with caplog.at_level(logging.WARNING, "pipelined.kafka"):
        assert keys(config, hours=2)[-3:] == [2, 1, 0]
        assert not caplog.records, "the rest was beyond the horizon"
        assert keys(config)[-3:] == [2, 1, 0]
    (told,) = caplog.records
    assert "partitions 0 of" in told.getMessage()
    assert "was deleted" in told.getMessage()

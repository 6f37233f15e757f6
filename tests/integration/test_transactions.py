"""Outputs and offsets, all or nothing, and who may write them: on the real Kafka."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator

import pytest
from confluent_kafka import Producer

from kafka_tools import declared, produce, read, small, values
from pipelined.config.tree import Config
from pipelined.errors import FencedError, UnavailableError
from pipelined.kafka.settings import Names, producer_settings
from pipelined.kafka.transactions import Aborted, Transactor
from pipelined.stages.contract import Output, Stream


@pytest.fixture
def config(kafka_bootstrap: str, domain: str) -> Iterator[Config]:
    with declared(small(kafka_bootstrap, domain)) as made:
        yield made


@pytest.fixture
def transactor(config: Config) -> Transactor:
    made = Transactor(config, f"{config.domain}.me", lambda: None)
    assert made.begin_session(lambda: False)
    return made


def output(value: bytes, partition: int | None = 0) -> Output:
    return Output(Stream.CACHED, b"k", value, [("h", b"1")], partition)


def test_outputs_go_where_they_say_with_key_headers_and_time(config: Config, transactor: Transactor) -> None:
    given = [
        output(b"a", 1),
        Output(Stream.RETRY, None, b"b", [], tier=0, timestamp=1_700_000_000_000),
        output(b"c", None),
    ]
    assert transactor.run(given) == 3
    first = next(m for m in read(config, Stream.CACHED) if m.value == b"a")
    assert (first.partition, first.key, first.header("h")) == (1, b"k", "1")
    (second,) = read(config, Stream.RETRY)
    assert (second.key, second.timestamp) == (None, 1_700_000_000_000)
    assert sorted(values(config, Stream.CACHED)) == [b"a", b"c"]


def test_a_key_goes_to_the_partition_that_every_kafka_client_would_choose(
    config: Config, transactor: Transactor
) -> None:
    keys = [b"key-%d" % number for number in range(20)]
    transactor.run([Output(Stream.CACHED, key, b"ours", []) for key in keys])
    other = Producer({"bootstrap.servers": config.kafka.bootstrap, "partitioner": "murmur2"})
    for key in keys:
        other.produce(Names(config).topic(Stream.CACHED), b"theirs", key)
    assert other.flush(30) == 0
    places: dict[bytes | None, set[int]] = {}
    for message in read(config, Stream.CACHED):
        places.setdefault(message.key, set()).add(message.partition)
    assert all(len(found) == 1 for found in places.values())
    assert set().union(*places.values()) == {0, 1}


def test_a_transaction_that_fails_leaves_nothing_and_the_next_one_goes_on(
    config: Config, transactor: Transactor
) -> None:
    too_large = output(b"x" * (config.kafka.max_message_bytes * 2))
    with pytest.raises(Aborted, match="MSG_SIZE_TOO_LARGE"):
        transactor.run([output(b"before"), too_large, output(b"after")])
    assert values(config, Stream.CACHED) == []
    assert transactor.run([output(b"again")]) == 1
    assert values(config, Stream.CACHED) == [b"again"]


def test_what_the_broker_refuses_is_aborted_and_the_next_goes_on_when_it_is_tried_again(
    config: Config, transactor: Transactor
) -> None:
    # Small enough for the producer, too large for the topic, and nothing that compression makes smaller.
    refused = output(os.urandom(config.kafka.max_message_bytes + 65536 + 100))
    with pytest.raises(Aborted):
        transactor.run([output(b"before"), refused])
    assert values(config, Stream.CACHED) == []
    with contextlib.suppress(Aborted):  # the producer's sequence begins anew
        transactor.run([output(b"again")])
    if not values(config, Stream.CACHED):
        assert transactor.run([output(b"again")]) == 1
    assert values(config, Stream.CACHED) == [b"again"]


def test_an_exception_while_outputs_are_made_is_passed_on_and_nothing_is_written(
    config: Config, transactor: Transactor
) -> None:
    def outputs() -> Iterator[Output]:
        yield output(b"before")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        transactor.run(outputs())
    assert values(config, Stream.CACHED) == []


def test_taking_an_identity_over_ends_what_its_predecessor_left_open(config: Config) -> None:
    predecessor = Producer(producer_settings(config, f"{config.domain}.me"))
    predecessor.init_transactions(30)
    predecessor.begin_transaction()
    predecessor.produce(Names(config).topic(Stream.CACHED), b"never committed", partition=0)
    assert predecessor.flush(30) == 0
    produce(config, Stream.CACHED, [b"behind it"], partition=0)
    assert values(config, Stream.CACHED) == [], "readers wait for the open transaction"
    beats: list[int] = []
    successor = Transactor(config, f"{config.domain}.me", lambda: beats.append(1))
    assert successor.begin_session(lambda: False)
    assert beats
    assert values(config, Stream.CACHED) == [b"behind it"]
    successor.run([output(b"mine")])
    assert values(config, Stream.CACHED) == [b"behind it", b"mine"]


def test_one_whose_identity_was_taken_over_can_write_nothing_more(
    config: Config, transactor: Transactor
) -> None:
    successor = Transactor(config, f"{config.domain}.me", lambda: None)
    assert successor.begin_session(lambda: False)
    began = time.monotonic()
    for _ in range(2):
        with pytest.raises(FencedError, match=r"kafka\.host"):
            transactor.run([output(b"zombie")])
    assert time.monotonic() - began < 3
    successor.run([output(b"mine")])
    assert values(config, Stream.CACHED) == [b"mine"]


def test_without_a_broker_it_waits_and_ends_when_told_to(domain: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        beats = 0

        def beat() -> None:
            nonlocal beats
            beats += 1

        config = small(f"127.0.0.1:{taken.getsockname()[1]}", domain)
        waiting = Transactor(config, "me", beat)
        assert waiting.begin_session(lambda: beats >= 2) is False
        assert beats == 2


def test_what_can_never_succeed_is_said_at_once(kafka_bootstrap: str, domain: str) -> None:
    config = small(kafka_bootstrap, domain)
    # Longer than the broker's transaction.max.timeout.ms.
    settings = producer_settings(config, "me") | {"transaction.timeout.ms": 10_000_000}
    refused = Transactor(config, f"{domain}.me", lambda: None)
    refused._settings = settings
    refused._producer = Producer(settings)
    with pytest.raises(UnavailableError, match="cannot go on"):
        refused.begin_session(lambda: False)

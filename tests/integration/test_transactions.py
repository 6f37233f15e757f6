"""Outputs and offsets, all or nothing, and who may write them: on the real Kafka."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from typing import NoReturn

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from kafka_tools import declared, produce, read, small, values
from pipelined.config.tree import Config
from pipelined.errors import FencedError, UnavailableError
from pipelined.kafka.settings import Names, consumer_settings, producer_settings
from pipelined.kafka.transactions import Aborted, Transactor
from pipelined.stages.contract import Output, Stream
from waiting import until


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


@contextlib.contextmanager
def joined(config: Config) -> Iterator[Consumer]:
    """A member of a group, under a name of which there can be one: who joins later takes it over."""
    member = Consumer(consumer_settings(config, f"{config.domain}.ours", "one"))
    member.subscribe([Names(config).topic(Stream.CACHED)])
    try:
        until(lambda: member.poll(0.1) is None and member.assignment(), "it has partitions", 30)
        yield member
    finally:
        member.close()


class Deaf(Producer):
    """A producer whose coordinator is dead: librdkafka at times goes on asking it, and looks for no other."""

    def send_offsets_to_transaction(self, *_: object) -> NoReturn:
        raise KafkaException(KafkaError(KafkaError._TRANSPORT, "nobody there", retriable=True))


def deafen(transactor: Transactor) -> None:
    transactor._producer = Deaf(transactor._settings)
    transactor._producer.init_transactions(30)


def test_a_member_whose_offsets_reach_no_coordinator_tries_again_with_another_client(
    config: Config, transactor: Transactor
) -> None:
    with joined(config) as member:
        offsets = [TopicPartition(Names(config).topic(Stream.CACHED), 0, 7)]
        deafen(transactor)
        with pytest.raises(Aborted, match=r"transaction aborted, and a new client made: .*nobody there"):
            transactor.run([output(b"a")], offsets, member.consumer_group_metadata())
        assert values(config, Stream.CACHED) == []
        assert transactor.run([output(b"a")], offsets, member.consumer_group_metadata()) == 1
        assert values(config, Stream.CACHED) == [b"a"]
        (committed,) = member.committed(offsets, 30)
        assert committed.offset == 7


def test_each_new_client_has_more_patience_until_a_transaction_lands(
    config: Config, transactor: Transactor
) -> None:
    with joined(config) as member:
        offsets = [TopicPartition(Names(config).topic(Stream.CACHED), 0, 7)]
        took = []
        for _ in range(2):
            deafen(transactor)
            began = time.monotonic()
            with pytest.raises(Aborted):
                transactor.run([], offsets, member.consumer_group_metadata())
            took.append(time.monotonic() - began)
        assert took[0] >= 2
        assert took[1] >= 4
        transactor.run([], offsets, member.consumer_group_metadata())
        deafen(transactor)
        with pytest.raises(Aborted, match=r"new client"):
            transactor.run([], offsets, member.consumer_group_metadata())


def test_who_is_no_member_of_a_group_takes_no_identity_over_a_second_time(
    config: Config, transactor: Transactor
) -> None:
    class Clogged(Producer):
        def __len__(self) -> int:
            return 1

    given = transactor._producer = Clogged(transactor._settings)
    given.init_transactions(30)
    transactor._most_patience = 1.0
    with pytest.raises(Aborted, match=r"transaction aborted: .*1 outputs did not arrive within 1 s"):
        transactor.run([output(b"a")])
    assert transactor._producer is given
    assert values(config, Stream.CACHED) == []


def test_a_member_whose_place_somebody_else_has_is_refused_its_offsets_with_a_new_client_too(
    config: Config, transactor: Transactor
) -> None:
    with joined(config) as member:
        before = member.consumer_group_metadata()
        with joined(config):
            deafen(transactor)
            offsets = [TopicPartition(Names(config).topic(Stream.CACHED), 0, 7)]
            with pytest.raises(Aborted, match="new client"):
                transactor.run([output(b"a")], offsets, before)
            with pytest.raises((FencedError, Aborted)):
                transactor.run([output(b"a")], offsets, before)
    assert values(config, Stream.CACHED) == []


def test_a_call_that_outlasts_its_own_limit_is_told_while_it_lasts(
    config: Config, transactor: Transactor
) -> None:
    released = threading.Event()

    class Stuck(Producer):
        def commit_transaction(self, *_: object) -> None:
            released.wait(60)

    transactor._producer = Stuck(transactor._settings)
    transactor._producer.init_transactions(30)
    thread = threading.Thread(target=transactor.run, args=([output(b"a")],))
    thread.start()
    try:
        assert not transactor.overdue
        until(lambda: transactor.overdue, "it is told", 30)
    finally:
        released.set()
        thread.join()
    assert not transactor.overdue


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

"""Work that is done out of order, and commits that are not what they seem: on the real Kafka."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions

from kafka_tools import DEADLINE, committed, declared, numbered, produce, read, small, values, working
from pipelined.config.tree import Config, Worker, Workers
from pipelined.errors import UnavailableError
from pipelined.kafka import topics
from pipelined.kafka.notes import write_note
from pipelined.kafka.progress import Progress
from pipelined.kafka.settings import Names
from pipelined.messages.codec import encode
from pipelined.stages.contract import Stream
from pipelined.stats import registry as metrics
from records import task
from stage_parts import Judging, Ordered
from waiting import until


@pytest.fixture
def config(kafka_bootstrap: str, domain: str) -> Iterator[Config]:
    with declared(small(kafka_bootstrap, domain, 1)) as made:
        yield made


def progress(config: Config) -> Progress | None:
    note = committed(config, "download", Stream.PENDING)[0][1]
    return note.progress if note else None


def topic(config: Config) -> str:
    return Names(config).topic(Stream.PENDING)


def set_by_hand(config: Config, offset: int, metadata: str = "") -> None:
    """As a command of Kafka's own, or somebody's program, would do it."""
    group = Names(config).group("download")
    consumer = Consumer({"bootstrap.servers": config.kafka.bootstrap, "group.id": group})
    try:
        consumer.commit(offsets=[TopicPartition(topic(config), 0, offset, metadata)], asynchronous=False)
    finally:
        consumer.close()


def test_one_slow_record_holds_up_nobody_and_a_successor_does_it_alone(config: Config) -> None:
    produce(config, Stream.PENDING, numbered(10))
    stage = Ordered()
    with working(config, stage):
        until(lambda: len(stage.waiting) == 10)
        stage.finish(*reversed(numbered(9, 1)))
        until(lambda: progress(config) == Progress(0, ((0, 1),), 10))
        assert sorted(values(config, Stream.CACHED)) == numbered(9, 1)
    again = Judging()
    with working(config, again) as worker:
        produce(config, Stream.PENDING, numbered(3, 10))
        until(lambda: len(again.durable) == 4)
        assert worker.stats.counter(metrics.RECORDS_IN) == 4
    assert [record.value for record in again.submitted] == [b"0", *numbered(3, 10)]
    assert sorted(values(config, Stream.CACHED)) == sorted(numbered(13))
    assert progress(config) == Progress.up_to(13)


def test_what_is_far_beyond_the_gap_is_kept_over_a_successor_that_has_not_read_so_far(config: Config) -> None:
    produce(config, Stream.PENDING, numbered(600))
    stage = Ordered()
    with working(config, stage):
        until(lambda: len(stage.waiting) == 600)
        stage.finish(*numbered(100, 500))
        until(lambda: progress(config) == Progress(0, ((0, 500),), 600))
    narrow = dataclasses.replace(
        config, workers=Workers(download=Worker(batch_records=100, window_records=100, drain_s=4.5))
    )
    stage = Ordered()
    with working(narrow, stage):
        until(lambda: len(stage.waiting) >= 100)
        stage.finish(*numbered(20, 10))
        until(lambda: progress(config) == Progress(0, ((0, 10), (30, 500)), 600))
    last = Judging()
    with working(config, last):
        until(lambda: len(last.durable) == 480)
    assert sorted(map(int, values(config, Stream.CACHED))) == [*range(600)]


def test_a_record_that_holds_up_the_first_offset_for_too_long_goes_to_a_retry_tier(config: Config) -> None:
    stuck = dataclasses.replace(
        config,
        workers=Workers(download=Worker(batch_records=100, window_records=100, drain_s=4.5, stuck_s=1.0)),
    )
    first, second, third = (encode(task(attachment_id=name)) for name in "abc")
    produce(config, Stream.PENDING, [first, second])
    stage = Ordered()
    with working(stuck, stage) as worker:
        until(lambda: len(stage.waiting) == 2)
        stage.finish(second)
        until(lambda: progress(config) == Progress.up_to(2))
        produce(config, Stream.PENDING, [third])
        until(lambda: third in stage.waiting)
        assert first not in stage.waiting
        assert worker.stats.counter(metrics.STUCK) == 1
        stage.finish(third)
        until(lambda: progress(config) == Progress.up_to(3))
    assert values(config, Stream.CACHED) == [second, third]
    (again,) = read(config, Stream.RETRY)
    assert again.header("attempt") == "1"


@pytest.mark.parametrize(
    ("metadata", "reason"), [("", "by hand"), ("v2:somebody else", "not of this program")]
)
def test_a_commit_of_somebody_else_is_said_and_its_offset_taken(
    config: Config, caplog: pytest.LogCaptureFixture, metadata: str, reason: str
) -> None:
    produce(config, Stream.PENDING, numbered(10))
    set_by_hand(config, 4, metadata)
    stage = Judging()
    with caplog.at_level(logging.WARNING), working(config, stage):
        until(lambda: len(stage.durable) == 6)
    assert values(config, Stream.CACHED) == numbered(6, 4)
    assert reason in caplog.text
    assert "going on at its offset, 4" in caplog.text


def test_an_offset_behind_the_end_of_the_topic_is_refused_with_what_to_do(config: Config) -> None:
    produce(config, Stream.PENDING, numbered(3))
    set_by_hand(config, 1000)
    refused = pytest.raises(UnavailableError, match=r"it ends at 3.*kafka-consumer-groups")
    with refused, working(config, Judging()):
        pass


def test_a_commit_for_a_former_topic_of_that_name_is_not_taken_for_this_one(
    config: Config, caplog: pytest.LogCaptureFixture
) -> None:
    produce(config, Stream.PENDING, numbered(8))
    # Kafka forgets the offsets of a topic that is deleted, as a rule: a restored cluster may not.
    set_by_hand(config, 5, write_note(topic(config), 0, 5, topic_id="kX2d0bZ5Q1a8m3VnE7rT_w"))
    stage = Judging()
    with caplog.at_level(logging.ERROR), working(config, stage):
        until(lambda: len(stage.durable) == 8)
    assert "deleted and made anew" in caplog.text
    assert [record.value for record in stage.submitted] == numbered(8)


def test_a_topic_made_anew_under_a_worker_ends_it_and_its_successor_reads_all_of_it(config: Config) -> None:
    produce(config, Stream.PENDING, numbered(5))
    stage = Judging()
    with working(config, stage) as worker:
        until(lambda: len(stage.durable) == 5)
        make_anew(config)
        produce(config, Stream.PENDING, numbered(8, 100))
        error = worker.ended()
    assert isinstance(error, UnavailableError)
    stage = Judging()
    with working(config, stage):
        until(lambda: len(stage.durable) == 8)
    assert sorted(record.value for record in stage.submitted) == numbered(8, 100)


def make_anew(config: Config) -> None:
    admin = AdminClient({"bootstrap.servers": config.kafka.bootstrap})
    admin.delete_topics([topic(config)])[topic(config)].result(DEADLINE)
    until(lambda: topic(config) not in admin.list_topics(timeout=DEADLINE).topics)
    topics.apply(config, topics.plan(config))
    until(lambda: not topics.plan(config))


def test_records_that_retention_removed_unread_are_counted_and_said(
    config: Config, caplog: pytest.LogCaptureFixture
) -> None:
    produce(config, Stream.PENDING, numbered(20))
    stage = Ordered()
    with working(config, stage):
        until(lambda: len(stage.waiting) == 20)
        stage.finish(*numbered(5), *numbered(2, 7), b"15")
        until(lambda: progress(config) == Progress(5, ((5, 7), (9, 15)), 16))
    admin = AdminClient({"bootstrap.servers": config.kafka.bootstrap})
    for answer in admin.delete_records([TopicPartition(topic(config), 0, 12)]).values():
        answer.result(DEADLINE)
    last = Judging()
    with caplog.at_level(logging.CRITICAL), working(config, last) as worker:
        until(lambda: len(last.durable) == 7)
        assert worker.stats.counter(metrics.RECORDS_EXPIRED) == 5
    assert "5 offsets" in caplog.text
    assert [record.value for record in last.submitted] == [*numbered(3, 12), *numbered(4, 16)]


def test_partitions_added_under_a_worker_are_read_from_their_beginning(config: Config) -> None:
    produce(config, Stream.PENDING, numbered(5))
    stage = Judging()
    with working(config, stage) as worker:
        until(lambda: len(stage.durable) == 5)
        admin = AdminClient({"bootstrap.servers": config.kafka.bootstrap})
        admin.create_partitions([NewPartitions(topic(config), 3)])[topic(config)].result(DEADLINE)
        until(lambda: len(admin.list_topics(timeout=DEADLINE).topics[topic(config)].partitions) == 3)
        for number in range(3):
            produce(config, Stream.PENDING, numbered(4, 10 * (number + 1)), partition=number)
        until(lambda: len(stage.durable) == 17 or not worker.alive)
        assert worker.error is None
    expected = numbered(5) + [value for number in range(3) for value in numbered(4, 10 * (number + 1))]
    assert sorted(values(config, Stream.CACHED)) == sorted(expected)

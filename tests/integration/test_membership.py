"""A member of a group: what it reads, where it begins, what it tells, how it ends. On the real Kafka."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import pytest
from confluent_kafka import Producer

from kafka_tools import DEADLINE, committed, declared, numbered, produce, small
from pipelined.config.tree import Config
from pipelined.errors import FencedError, UnavailableError
from pipelined.kafka.membership import Member
from pipelined.kafka.notes import Note
from pipelined.kafka.positions import Position
from pipelined.kafka.progress import Progress
from pipelined.kafka.settings import Names
from pipelined.stages.contract import Partition, Record, Stream
from waiting import until


class Listening:
    """A listener that begins where the group ended, and keeps what it is told."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.positions: dict[Partition, Position] = {}
        self.begin: dict[Partition, int] = {}
        self.given_up: list[Partition] = []
        self.dropped: list[Partition] = []
        self.failure = failure

    def assigned(self, positions: dict[Partition, Position]) -> dict[Partition, int]:
        if self.failure is not None:
            raise self.failure
        self.positions |= positions
        return {p: self.begin.get(p, position.offset or 0) for p, position in positions.items()}

    def revoked(self, partitions: Sequence[Partition]) -> None:
        self.given_up += partitions

    def lost(self, partitions: Sequence[Partition]) -> None:
        self.dropped += partitions


@pytest.fixture
def config(kafka_bootstrap: str, domain: str) -> Iterator[Config]:
    with declared(small(kafka_bootstrap, domain)) as made:
        yield made


@pytest.fixture
def members() -> Iterator[list[Member]]:
    """Members to leave at the end."""
    joined: list[Member] = []
    yield joined
    for member in joined:
        member.close()


def join(config: Config, members: list[Member], listener: Listening, index: int = 0) -> Member:
    member = Member(config, "download", index, [Names(config).topic(Stream.PENDING)], listener, lambda: None)
    members.append(member)
    member.subscribe()
    return member


def records(member: Member, count: int) -> list[Record]:
    found: list[Record] = []
    deadline = time.monotonic() + DEADLINE
    while len(found) < count:
        assert time.monotonic() < deadline, f"{len(found)} of {count} records"
        found += member.poll(100, 0.2)
    return found


def assigned(member: Member, count: int = 2) -> None:
    until(lambda: member.poll(1, 0.05) == [] and len(member.partitions) == count)


def test_records_have_all_that_was_produced_and_a_tombstone_is_an_empty_value(
    config: Config, members: list[Member]
) -> None:
    topic = Names(config).topic(Stream.PENDING)
    producer = Producer({"bootstrap.servers": config.kafka.bootstrap})
    headers: list[tuple[str, str | bytes | None]] = [("a", b"1"), ("a", b"2"), ("n", None)]
    producer.produce(topic, b"v", b"k", 1, headers=headers, timestamp=1_700_000_000_123)
    producer.produce(topic, None, None, 1)
    assert producer.flush(DEADLINE) == 0
    first, second = records(join(config, members, Listening()), 2)
    assert first == Record(Partition(topic, 1), 0, b"k", b"v", headers, 1_700_000_000_123)
    assert first.header("a") == "2"
    assert first.header("n") is None
    assert (second.key, second.value, second.headers) == (None, b"", [])
    assert first.partition is second.partition


def test_it_begins_at_the_beginning_or_where_its_listener_says_and_hands_over_what_is_known(
    config: Config, members: list[Member]
) -> None:
    produce(config, Stream.PENDING, numbered(10))
    listener = Listening()
    member = join(config, members, listener)
    assert len(records(member, 10)) == 10
    zero, one = (Partition(Names(config).topic(Stream.PENDING), number) for number in range(2))
    topic_id = listener.positions[zero].topic_id
    assert len(topic_id) == 22
    assert listener.positions == dict.fromkeys((zero, one), Position(None, None, "", topic_id, 0, 5))
    member.commit([member.place(zero, 3, dead=7)])
    until(lambda: committed(config, "download", Stream.PENDING)[0][0] == 3)
    member.close()
    members.clear()

    listener = Listening()
    listener.begin = {one: 4}
    again = records(join(config, members, listener), 3)
    assert listener.positions == {
        zero: Position(3, Note(topic_id, Progress.up_to(3), 7), "", topic_id, 0, 5),
        one: Position(None, None, "", topic_id, 0, 5),
    }
    assert sorted((r.partition.number, r.offset) for r in again) == [(0, 3), (0, 4), (1, 4)]


def test_a_poll_waits_for_the_first_record_only(config: Config, members: list[Member]) -> None:
    member = join(config, members, Listening())
    assigned(member)
    began = time.monotonic()
    assert member.poll(1000, 0.2) == []
    assert time.monotonic() - began < 1
    produce(config, Stream.PENDING, numbered(3))
    until(lambda: member.lag({}) == 3 or not member.poll(0, 0))
    began = time.monotonic()
    found = member.poll(1000, 20)
    assert time.monotonic() - began < 10, "it does not wait for the thousandth"
    assert found


def test_a_paused_partition_gives_nothing_and_goes_on_where_it_was(
    config: Config, members: list[Member]
) -> None:
    member = join(config, members, Listening())
    assigned(member)
    zero, one = sorted(member.partitions)
    member.pause(zero)
    member.pause(zero)
    produce(config, Stream.PENDING, numbered(20))
    assert {record.partition for record in records(member, 10)} == {one}
    assert member.poll(10, 0.2) == []
    member.resume(zero)
    member.resume(zero)
    assert [(r.partition, r.offset) for r in records(member, 10)] == [(zero, n) for n in range(10)]


def test_what_the_listener_raises_comes_out_of_poll(config: Config, members: list[Member]) -> None:
    member = join(config, members, Listening(UnavailableError("the history cannot be read")))
    with pytest.raises(UnavailableError, match="the history"):
        records(member, 1)


def test_another_process_with_the_same_id_ends_this_one(config: Config, members: list[Member]) -> None:
    first = join(config, members, Listening())
    assigned(first)
    second = join(config, members, Listening())
    assigned(second)
    with pytest.raises(FencedError, match=r"kafka\.host"):
        records(first, 1)
    produce(config, Stream.PENDING, numbered(4))
    assert len(records(second, 4)) == 4


def test_the_lag_counts_what_lies_behind_and_no_marker_at_the_end(
    config: Config, members: list[Member]
) -> None:
    producer = Producer(
        {"bootstrap.servers": config.kafka.bootstrap, "transactional.id": f"{config.domain}.x"}
    )
    producer.init_transactions(DEADLINE)
    producer.begin_transaction()
    for value in numbered(5):
        producer.produce(Names(config).topic(Stream.PENDING), value, partition=0)
    producer.commit_transaction(DEADLINE)
    member = join(config, members, Listening())
    zero, one = (Partition(Names(config).topic(Stream.PENDING), number) for number in range(2))
    assert len(records(member, 5)) == 5
    until(lambda: member.poll(1, 0.05) == [] and member.lag({zero: 5, one: 0}) == 0)
    assert member.lag({zero: 2}) == 4, "three records and the marker"


def test_partitions_are_handed_over_when_it_leaves_and_come_to_another(
    config: Config, members: list[Member]
) -> None:
    one, two = Listening(), Listening()
    first = join(config, members, one)
    assigned(first)
    second = join(config, members, two, index=1)

    def shared() -> bool:
        first.poll(1, 0.02)
        second.poll(1, 0.02)
        return len(first.partitions) == len(second.partitions) == 1

    until(shared)
    assert one.given_up == second.partitions == list(two.positions)
    assert one.dropped == []
    held = second.partitions
    second.close()
    members.remove(second)
    assert two.given_up == held

"""Leaving for good: others have the partitions at once; who is in a group; TLS and passwords as elsewhere."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

import realparts
from kafka_tools import declared, numbered, produce, small
from pipelined.config.leaves import built
from pipelined.config.tree import Config
from pipelined.errors import UnavailableError
from pipelined.kafka import topics
from pipelined.kafka.groups import members
from pipelined.kafka.leaving import connection, leave
from pipelined.kafka.membership import Member
from pipelined.kafka.positions import Position
from pipelined.kafka.settings import Names
from pipelined.local.kafka import SASL_USER, Cluster
from pipelined.stages.contract import Partition, Stream
from waiting import until

SESSION_S = 30.0


class Listening:
    """A listener that begins where the group ended, or at the first record."""

    def assigned(self, positions: dict[Partition, Position]) -> dict[Partition, int]:
        return {partition: where.offset or where.low for partition, where in positions.items()}

    def revoked(self, partitions: Sequence[Partition]) -> None:
        del partitions

    def lost(self, partitions: Sequence[Partition]) -> None:
        del partitions


@pytest.fixture
def config(kafka_bootstrap: str, domain: str) -> Iterator[Config]:
    """A session timeout that no test waits for."""
    with declared(small(kafka_bootstrap, domain, 4, session_timeout_s=SESSION_S)) as made:
        yield made


@pytest.fixture
def pair(config: Config) -> Iterator[tuple[Member, Member]]:
    """Two members of the download's group, two partitions each."""
    topic = Names(config).topic(Stream.PENDING)
    joined = []
    for index in range(2):
        member = Member(config, "download", index, [topic], Listening(), lambda: None)
        member.subscribe()
        joined.append(member)
    first, second = joined

    def shared() -> bool:
        poll(first, second)
        return len(first.partitions) == len(second.partitions) == 2

    until(shared, "the partitions are shared")
    yield first, second
    for member in joined:
        member.close()


def poll(*members: Member) -> None:
    for member in members:
        member.poll(100, 0.02)


def test_the_partitions_of_a_member_that_left_move_at_once_and_not_when_its_session_times_out(
    config: Config, pair: tuple[Member, Member]
) -> None:
    first, second = pair
    second.close()
    began = time.monotonic()
    assert leave(config, second.group, [second.instance]) == [second.instance]

    def has_all() -> bool:
        poll(first)
        return len(first.partitions) == 4

    until(has_all, "the first has all partitions")
    assert time.monotonic() - began < SESSION_S / 4
    assert [member.instance for member in members(config, ["download"])] == [first.instance]


def test_one_who_is_not_in_the_group_is_none_who_left(config: Config, pair: tuple[Member, Member]) -> None:
    first, second = pair
    assert leave(config, first.group, ["nobody", second.instance]) == [second.instance]
    assert leave(config, first.group, ["nobody"]) == []


def test_a_member_removed_while_it_runs_joins_again(config: Config, pair: tuple[Member, Member]) -> None:
    first, second = pair
    assert leave(config, first.group, [second.instance]) == [second.instance]

    def is_back() -> bool:
        poll(first, second)
        return len(first.partitions) == len(second.partitions) == 2 and len(members(config)) == 2

    until(is_back, "both have their share again")
    found = members(config, ["download"])
    assert {member.instance for member in found} == {first.instance, second.instance}


def test_the_members_are_told_with_host_partitions_and_lag(
    config: Config, pair: tuple[Member, Member]
) -> None:
    first, second = pair
    produce(config, Stream.PENDING, numbered(40))
    found = members(config, lags=True)
    assert [(m.worker_type, m.host, m.index, m.address) for m in found] == [
        ("download", "h1", 0, "/127.0.0.1"),
        ("download", "h1", 1, "/127.0.0.1"),
    ]
    for member, told in zip((first, second), found, strict=True):
        assert list(told.partitions) == sorted((p.topic, p.number) for p in member.partitions)
        assert told.lag == 20


def test_brokers_that_are_away_are_told_in_time() -> None:
    config = small("127.0.0.1:1", "nowhere")
    began = time.monotonic()
    with pytest.raises(UnavailableError, match=r"could not be left: .*in 6 s"):
        leave(config, "nowhere.download", ["x"], timeout=0.5)
    assert time.monotonic() - began < 5


def test_a_member_leaves_over_tls_with_a_password_and_no_log_shows_it(
    tmp_path: Path, domain: str, caplog: pytest.LogCaptureFixture
) -> None:
    realparts.require("the local Kafka", realparts.local_kafka_missing())
    caplog.set_level(logging.DEBUG)
    password = tmp_path / "password"
    with Cluster(sasl=True) as cluster:
        password.write_text(cluster.connection_string)
        settings = {
            "domain": domain,
            "kafka.bootstrap": cluster.sasl_bootstrap,
            "kafka.security_protocol": "SASL_SSL",
            "kafka.sasl_username": SASL_USER,
            "kafka.sasl_password": f"file:{password}",
            "kafka.ca_file": str(cluster.ca_path),
            "topics.replication_factor": 1,
            "topics.min_insync_replicas": 1,
        }
        config = built(settings)
        topics.apply(config, topics.plan(config))
        member = Member(
            config, "download", 0, [Names(config).topic(Stream.PENDING)], Listening(), lambda: None
        )
        member.subscribe()
        until(lambda: member.poll(1, 0.05) == [] and member.partitions)
        member.close()
        with pytest.raises(UnavailableError):
            leave(built(settings | {"kafka.ca_file": ""}), member.group, [member.instance], timeout=2)
        assert leave(config, member.group, [member.instance], timeout=5) == [member.instance]
        assert cluster.connection_string not in caplog.text


def test_scram_and_the_addresses_are_handed_on(tmp_path: Path) -> None:
    (tmp_path / "pw").write_text("hunter2\n")
    config = built(
        {
            "kafka.bootstrap": "a:9093, b:9093",
            "kafka.security_protocol": "SASL_SSL",
            "kafka.sasl_mechanism": "SCRAM-SHA-512",
            "kafka.sasl_username": "me",
            "kafka.sasl_password": f"file:{tmp_path}/pw",
        }
    )
    settings = connection(config, 2.0)
    assert settings["bootstrap_servers"] == ["a:9093", "b:9093"]
    assert (settings["sasl_mechanism"], settings["sasl_plain_password"]) == ("SCRAM-SHA-512", "hunter2")
    assert settings["bootstrap_timeout_ms"] == 2000
    assert "ssl_cafile" not in settings, "empty: the system's own"

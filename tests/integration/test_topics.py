"""The topics as declared, held against a real cluster."""

from __future__ import annotations

import dataclasses
import socket
import time
from collections.abc import Iterator
from typing import Any, cast

import pytest
from confluent_kafka import Consumer
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from kafka_tools import DEADLINE, declared, small
from pipelined.config.cluster import Topic
from pipelined.config.tree import Config
from pipelined.errors import ConfigError, UnavailableError
from pipelined.kafka import topics
from pipelined.kafka.settings import Names
from waiting import until


@pytest.fixture
def fresh(kafka_bootstrap: str, domain: str) -> Iterator[Config]:
    """A configuration whose topics are not there yet; they are removed at the end."""
    config = small(kafka_bootstrap, domain)
    yield config
    admin = AdminClient({"bootstrap.servers": kafka_bootstrap})
    for gone in admin.delete_topics([topic.name for topic in topics.declared(config)]).values():
        gone.exception(DEADLINE)


@pytest.fixture
def config(fresh: Config) -> Iterator[Config]:
    with declared(fresh):
        yield fresh


def with_topic(config: Config, stream: str, **changes: Any) -> Config:
    section = dataclasses.replace(Names(config).section(stream), **changes)
    return dataclasses.replace(
        config, topics=dataclasses.replace(config.topics, **cast(dict[str, Any], {stream: section}))
    )


def partitions(config: Config, stream: str) -> int:
    consumer = Consumer({"bootstrap.servers": config.kafka.bootstrap, "group.id": "x"})
    try:
        name = Names(config).topic(stream)
        return len(consumer.list_topics(name, timeout=DEADLINE).topics[name].partitions)
    finally:
        consumer.close()


def setting(config: Config, stream: str, name: str) -> str:
    admin = AdminClient({"bootstrap.servers": config.kafka.bootstrap})
    resource = ConfigResource(ResourceType.TOPIC, Names(config).topic(stream))
    (answer,) = admin.describe_configs([resource]).values()
    value = answer.result(DEADLINE)[name].value
    assert isinstance(value, str)
    return value


def change(config: Config, stream: str, name: str, value: str) -> None:
    """As somebody with the tools of Kafka would."""
    admin = AdminClient({"bootstrap.servers": config.kafka.bootstrap})
    entry = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, Names(config).topic(stream), incremental_configs=[entry])
    (answer,) = admin.incremental_alter_configs([resource]).values()
    answer.result(DEADLINE)


def test_what_is_missing_is_planned_made_as_declared_and_then_there_is_nothing_to_do(fresh: Config) -> None:
    changes = topics.plan(fresh)
    assert [change.topic for change in changes] == [topic.name for topic in topics.declared(fresh)]
    assert all(change.create and not change.refused for change in changes)
    with pytest.raises(ConfigError, match="topics apply"):
        topics.check(fresh)
    topics.apply(fresh, changes)
    until(lambda: topics.plan(fresh) == [])
    topics.check(fresh)
    assert partitions(fresh, "events_raw") == 2
    assert setting(fresh, "checkpoints", "cleanup.policy") == "compact"
    assert setting(fresh, "downloads_dlq", "retention.ms") == str(168 * 3_600_000)
    assert setting(fresh, "events_raw", "max.message.bytes") == str(fresh.kafka.max_message_bytes)


def test_applying_twice_is_no_error(fresh: Config) -> None:
    changes = topics.plan(fresh)
    topics.apply(fresh, changes)
    topics.apply(fresh, changes)
    until(lambda: topics.plan(fresh) == [])


def test_a_topic_grows(config: Config) -> None:
    wanted = with_topic(config, "downloads_pending", partitions=5)
    (change,) = topics.plan(wanted)
    assert (change.what, change.partitions) == ("grow from 2 to 5 partitions", 5)
    topics.apply(wanted, [change])
    until(lambda: topics.plan(wanted) == [])
    assert partitions(wanted, "downloads_pending") == 5


def test_a_topic_is_never_shrunk_and_the_rest_is_done_all_the_same(config: Config) -> None:
    wanted = with_topic(config, "downloads_pending", partitions=1)
    wanted = with_topic(wanted, "downloads_dlq", retention_hours=1.0)
    changes = topics.plan(wanted)
    assert len(changes) == 2
    with pytest.raises(ConfigError, match="never shrinks"):
        topics.apply(wanted, changes)
    (left,) = topics.plan(wanted)
    assert left.refused
    assert partitions(wanted, "downloads_pending") == 2


def test_a_setting_that_somebody_changed_is_found_and_mended(config: Config) -> None:
    change(config, "events_ingested", "retention.ms", "60000")
    change(config, "events_ingested", "retention.bytes", "1073741824")
    change(config, "events_ingested", "cleanup.policy", "compact")
    change(config, "checkpoints", "cleanup.policy", "delete")
    until(lambda: len(topics.plan(config)) == 2)
    with pytest.raises(ConfigError) as raised:
        topics.check(config)
    assert "retention.ms 60000 → 604800000" in str(raised.value)
    assert "cleanup.policy compact → delete" in str(raised.value)
    assert "retention.bytes 1073741824 → -1" in str(raised.value)
    assert "cleanup.policy delete → compact" in str(raised.value)
    topics.apply(config, topics.plan(config))
    until(lambda: topics.plan(config) == [])
    assert setting(config, "events_ingested", "retention.ms") == "604800000"


def test_settings_that_nobody_declared_are_left_alone(config: Config) -> None:
    change(config, "events_raw", "segment.ms", "1234567")
    assert topics.plan(config) == []
    assert setting(config, "events_raw", "segment.ms") == "1234567"


def test_what_the_cluster_refuses_is_said_with_the_topics_name(fresh: Config) -> None:
    wanted = dataclasses.replace(fresh, topics=dataclasses.replace(fresh.topics, replication_factor=9))
    with pytest.raises(ConfigError, match=r"events\.raw: .*[Rr]eplication"):
        topics.apply(wanted, topics.plan(wanted))


def test_a_new_retry_tier_is_a_new_topic_and_an_old_one_is_left_to_run_empty(config: Config) -> None:
    wanted = dataclasses.replace(config, retry=dataclasses.replace(config.retry, delays_s=(0.4, 7.0)))
    (change,) = topics.plan(wanted)
    assert change.create
    assert change.topic.endswith("downloads.retry.7s")
    renamed = with_topic(config, "downloads_dlq", name=f"{config.domain}.dead")
    assert [c.topic for c in topics.plan(renamed)] == [f"{config.domain}.dead"]
    assert isinstance(config.topics.downloads_dlq, Topic)


def test_a_cluster_that_does_not_answer_is_said_soon(domain: str) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        config = small(f"127.0.0.1:{nobody.getsockname()[1]}", domain)
        began = time.monotonic()
        with pytest.raises(UnavailableError, match=r"kafka\.bootstrap"):
            topics.check(config, timeout=1.0)
        assert time.monotonic() - began < 4

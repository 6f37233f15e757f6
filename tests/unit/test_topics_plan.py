from __future__ import annotations

import dataclasses

from pipelined.config.cluster import Kafka, Topic, Topics
from pipelined.config.tree import Config, Retry
from pipelined.kafka.settings import HEADER_ROOM, producer_settings
from pipelined.kafka.topics import STREAMS, Change, Declared, declared


def by_name(config: Config) -> dict[str, Declared]:
    topics = declared(config)
    found = {topic.name: topic for topic in topics}
    assert len(found) == len(topics)
    return found


def test_every_topic_of_the_configuration_is_declared_once() -> None:
    sections = [f.name for f in dataclasses.fields(Topics) if isinstance(getattr(Topics(), f.name), Topic)]
    assert sorted(sections) == sorted(STREAMS)
    assert set(by_name(Config())) == {
        "xact.events.raw",
        "xact.events.ingested",
        "xact.events.dlq",
        "xact.downloads.pending",
        "xact.downloads.cached",
        "xact.downloads.results",
        "xact.downloads.retry.5m",
        "xact.downloads.retry.10m",
        "xact.downloads.retry.20m",
        "xact.downloads.retry.40m",
        "xact.downloads.dlq",
        "xact.checkpoints",
    }


def test_a_topic_is_declared_with_what_its_section_says() -> None:
    topics = Topics(
        replication_factor=2,
        min_insync_replicas=1,
        events_dlq=Topic(name="dead", partitions=7, retention_hours=0.5),
    )
    assert by_name(Config(topics=topics))["dead"] == Declared(
        "dead",
        7,
        2,
        {
            "cleanup.policy": "delete",
            "retention.ms": "1800000",
            "max.message.bytes": str(Kafka().max_message_bytes + HEADER_ROOM),
            "min.insync.replicas": "1",
        },
    )


def test_the_positions_of_the_sources_are_compacted_and_kept_for_ever() -> None:
    settings = by_name(Config())["xact.checkpoints"].settings
    assert (settings["cleanup.policy"], settings["retention.ms"]) == ("compact", "-1")


def test_whatever_fits_the_raw_topic_fits_every_topic_behind_it_with_its_headers() -> None:
    config = Config(kafka=Kafka(max_message_bytes=1 << 20))
    sizes = {name: int(t.settings["max.message.bytes"]) for name, t in by_name(config).items()}
    assert sizes.pop("xact.events.raw") == 1 << 20
    assert set(sizes.values()) == {(1 << 20) + HEADER_ROOM}
    assert producer_settings(config, "x")["message.max.bytes"] >= (1 << 20) + HEADER_ROOM


def test_without_a_retry_tier_there_is_no_retry_topic() -> None:
    assert not [name for name in by_name(Config(retry=Retry(delays_s=()))) if "retry" in name]


def test_a_change_says_what_is_done_or_why_nothing_can_be() -> None:
    assert str(Change("t", "grow from 1 to 2 partitions", partitions=2)) == "t: grow from 1 to 2 partitions"
    assert str(Change("t", "shrink", refused="never")) == "t: shrink - cannot be applied: never"

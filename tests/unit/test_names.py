from __future__ import annotations

import platform
from pathlib import Path

import pytest

from pipelined.config.cluster import Kafka, Topic, Topics
from pipelined.config.tree import WORKER_TYPES, Config, Retry, Worker, Workers
from pipelined.kafka.settings import (
    Names,
    admin_settings,
    consumer_settings,
    host_name,
    producer_settings,
)


def test_the_topics_have_the_names_of_the_contract() -> None:
    names = Names(Config())
    assert names.topic("events_raw") == "xact.events.raw"
    assert names.topic("downloads_dlq") == "xact.downloads.dlq"
    assert names.topic("checkpoints") == "xact.checkpoints"
    assert names.topics("downloads_retry") == [
        f"xact.downloads.retry.{d}" for d in ("5m", "10m", "20m", "40m")
    ]
    assert names.topics("events_raw") == ["xact.events.raw"]


def test_a_configured_name_is_taken_as_it_is_and_the_domain_is_not_put_before_it() -> None:
    topics = Topics(events_raw=Topic(name="raw"), downloads_retry=Topic(name="again"))
    names = Names(Config(domain="d", topics=topics))
    assert names.topic("events_raw") == "raw"
    assert names.topic("downloads_retry", 1) == "again.10m"
    assert names.topic("downloads_cached") == "d.downloads.cached"


@pytest.mark.parametrize(
    ("seconds", "name"),
    [(300, "5m"), (3600, "1h"), (5400, "90m"), (90, "90s"), (1.5, "1500ms"), (0.2, "200ms"), (86400, "24h")],
)
def test_a_delay_is_written_in_the_largest_whole_unit(seconds: float, name: str) -> None:
    names = Names(Config(retry=Retry(delays_s=(seconds,))))
    assert names.topic("downloads_retry", 0) == f"xact.downloads.retry.{name}"


def test_groups_and_members_are_named_by_domain_host_type_and_index() -> None:
    names = Names(Config(domain="d", kafka=Kafka(host="h1")))
    assert names.group("download") == "d.download"
    assert names.instance("download", 3) == "d.h1.download.3"
    instances = {names.instance(worker, index) for worker in WORKER_TYPES for index in range(3)}
    assert len(instances) == 3 * len(WORKER_TYPES)


@pytest.mark.parametrize(
    ("node", "name"), [("host-1.example", "host-1.example"), ("hôst 1", "h-st-1"), ("", "localhost")]
)
def test_without_a_configured_host_it_is_the_machines_made_fit(
    monkeypatch: pytest.MonkeyPatch, node: str, name: str
) -> None:
    monkeypatch.setattr(platform, "node", lambda: node)
    assert host_name(Config()) == name
    assert host_name(Config(kafka=Kafka(host="set"))) == "set"


def test_a_member_is_static_and_cooperative_and_reads_only_what_is_committed() -> None:
    settings = consumer_settings(Config(), "g", "i")
    assert settings["group.instance.id"] == "i"
    assert settings["partition.assignment.strategy"] == "cooperative-sticky"
    assert settings["session.timeout.ms"] == 30000
    assert settings["isolation.level"] == "read_committed"
    assert settings["enable.auto.commit"] is False
    assert settings["enable.auto.offset.store"] is False
    assert settings["auto.offset.reset"] == "error"


def test_a_reader_without_membership_has_no_instance() -> None:
    assert "group.instance.id" not in consumer_settings(Config(), "g", None)


def test_a_heartbeat_comes_often_enough_for_a_short_session() -> None:
    config = Config(kafka=Kafka(session_timeout_s=1, transaction_timeout_s=1))
    assert consumer_settings(config, "g", "i")["heartbeat.interval.ms"] * 3 < 1000


def test_no_group_expels_a_worker_before_its_own_supervisor_has_judged_it() -> None:
    slow = Config(workers=Workers(upload=Worker(hang_s=1000), event_ingester=Worker(start_s=2000)))
    for config in (Config(), slow, Config(kafka=Kafka(session_timeout_s=300))):
        settings = consumer_settings(config, "g", "i")
        patience = settings["max.poll.interval.ms"] / 1000
        workers = [config.worker(each) for each in WORKER_TYPES]
        assert all(patience > max(worker.hang_s, worker.start_s) + 5 for worker in workers)
        assert patience >= config.kafka.session_timeout_s, "librdkafka refuses less"
    endless = Config(workers=Workers(upload=Worker(hang_s=1e9)))
    assert consumer_settings(endless, "g", "i")["max.poll.interval.ms"] == 86_400_000


def test_one_message_of_the_largest_size_always_fits_a_fetch_and_the_queue() -> None:
    config = Config(kafka=Kafka(max_message_bytes=104_857_600))
    settings = consumer_settings(config, "g", None)
    assert settings["fetch.max.bytes"] > 104_857_600
    assert settings["receive.message.max.bytes"] > settings["fetch.max.bytes"]


def test_a_producer_is_idempotent_and_hashes_keys_as_every_kafka_client_does() -> None:
    settings = producer_settings(Config(kafka=Kafka(transaction_timeout_s=7)), "me")
    assert settings["transactional.id"] == "me"
    assert settings["transaction.timeout.ms"] == 7000
    assert settings["enable.idempotence"] is True
    assert settings["partitioner"] == "murmur2_random"


def test_the_password_is_looked_up_where_the_configuration_says_and_only_with_sasl(tmp_path: Path) -> None:
    (tmp_path / "pw").write_text("hunter2\n")
    kafka = Kafka(
        security_protocol="SASL_SSL",
        sasl_username="$ConnectionString",
        sasl_password=f"file:{tmp_path}/pw",
        ca_file="/ca.pem",
    )
    settings = admin_settings(Config(kafka=kafka))
    assert settings["sasl.username"] == "$ConnectionString"
    assert settings["sasl.password"] == "hunter2"
    assert settings["ssl.ca.location"] == "/ca.pem"
    assert not [name for name in admin_settings(Config()) if name.startswith(("sasl.", "ssl."))]


def test_a_coordinator_that_loads_is_no_news_and_anything_else_is(caplog: pytest.LogCaptureFixture) -> None:
    told = admin_settings(Config())["logger"]
    told.warning("GETPID [p-1] Failed to acquire idempotence PID: Coordinator load in progress: retrying")
    told.warning("GETPID [p-1] Failed to acquire idempotence PID: not authorized: giving up")
    told.warning("FAIL [p-1] Connection refused")
    assert [line.split()[0] for line in caplog.messages] == ["GETPID", "FAIL"]
    assert "giving up" in caplog.messages[0]

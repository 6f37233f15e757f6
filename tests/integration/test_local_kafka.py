"""The local Kafka is the real one: it serves, keeps what was acknowledged, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

import realparts
from pipelined.errors import ConfigError, UnavailableError
from pipelined.local.kafka import Cluster
from pipelined.local.ports import Ports, draw_ports
from processes import gone
from waiting import until

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", autouse=True)
def _java() -> None:
    realparts.require("the local Kafka", realparts.local_kafka_missing())


@pytest.fixture(scope="module")
def cluster(_java: None) -> Iterator[Cluster]:
    with Cluster(sasl=True) as running:
        yield running


def client(bootstrap: str) -> dict[str, str | int | float | bool]:
    return {
        "bootstrap.servers": bootstrap,
        "log_level": 0,
        "reconnect.backoff.ms": 20,
        "reconnect.backoff.max.ms": 100,
    }


def create(bootstrap: str, topic: str, replicas: int = 1) -> None:
    admin = AdminClient(client(bootstrap))
    for created in admin.create_topics([NewTopic(topic, 1, replicas)]).values():
        created.result(15)


def produce(bootstrap: str, topic: str, values: list[str]) -> None:
    producer = Producer({**client(bootstrap), "acks": "all"})
    failed: list[KafkaError] = []
    for value in values:
        producer.produce(topic, value, on_delivery=lambda error, _: failed.append(error) if error else None)
    assert producer.flush(30) == 0
    assert failed == []


def read(bootstrap: str, topic: str, count: int) -> list[str]:
    """The first ``count`` values of the topic, fewer when they do not come in 20 s."""
    consumer = Consumer({**client(bootstrap), "group.id": f"reader-{topic}", "enable.auto.commit": False})
    consumer.assign([TopicPartition(topic, 0, 0)])
    values: list[str] = []
    deadline = time.monotonic() + 20
    while len(values) < count and time.monotonic() < deadline:
        for message in consumer.consume(count, 0.2):
            if not message.error():
                values.append((message.value() or b"").decode())
    consumer.close()
    return values


def test_one_node_serves_within_ten_seconds_of_its_start(cluster: Cluster) -> None:
    started = time.monotonic()
    with Cluster() as fresh:  # `cluster` came first, so all is fetched
        assert time.monotonic() - started < 10
        assert fresh.bootstrap != cluster.bootstrap
        assert fresh.sasl_bootstrap == ""
        assert fresh.ca_path is None
        folder = fresh.nodes[0].folder.parent
        pid = fresh.nodes[0].pid
        assert not gone(pid)
    assert gone(pid)
    assert not folder.exists()


def test_what_is_produced_is_consumed(cluster: Cluster, domain: str) -> None:
    create(cluster.bootstrap, domain)
    values = [str(number) for number in range(1000)]
    produce(cluster.bootstrap, domain, values)
    assert read(cluster.bootstrap, domain, 1000) == values


def test_a_message_of_fifteen_megabytes_passes(cluster: Cluster, domain: str) -> None:
    create(cluster.bootstrap, domain)
    size = 15_000_000
    producer = Producer({**client(cluster.bootstrap), "message.max.bytes": 16_000_000})
    results: list[KafkaError | None] = []
    producer.produce(domain, b"x" * size, on_delivery=lambda error, _: results.append(error))
    assert producer.flush(30) == 0
    assert results == [None]
    assert [len(value) for value in read(cluster.bootstrap, domain, 1)] == [size]


def test_a_topic_nobody_created_is_not_created_by_asking(cluster: Cluster, domain: str) -> None:
    admin = AdminClient(client(cluster.bootstrap))
    error = admin.list_topics(domain, timeout=10).topics[domain].error
    assert error is not None
    assert error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART


def test_the_event_hub_listener_takes_the_connection_string(cluster: Cluster) -> None:
    admin = AdminClient({**cluster.sasl_settings, "log_level": 0})
    assert set(admin.list_topics(timeout=15).brokers) == {0}


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ({"sasl.password": "Endpoint=sb://localhost/;SharedAccessKey=wrong"}, KafkaError._AUTHENTICATION),
        ({"sasl.username": "somebody"}, KafkaError._AUTHENTICATION),
        ({"ssl.ca.location": ""}, KafkaError._SSL),
    ],
    ids=["password", "user", "authority"],
)
def test_the_event_hub_listener_refuses_what_is_wrong(
    cluster: Cluster, wrong: dict[str, str], expected: int
) -> None:
    errors: list[int] = []
    settings = {**cluster.sasl_settings, **wrong, "log_level": 0}
    admin = AdminClient({**settings, "error_cb": lambda error: errors.append(error.code())})
    with pytest.raises(KafkaException):
        admin.list_topics(timeout=2)
    until(lambda: admin.poll(0.1) >= 0 and expected in errors)


@pytest.mark.parametrize("how", ["kill", "stop"])
def test_a_restarted_node_has_its_port_and_what_was_acknowledged(
    cluster: Cluster, domain: str, how: str
) -> None:
    create(cluster.bootstrap, domain)
    produce(cluster.bootstrap, domain, ["before"])
    address = cluster.bootstrap
    (node,) = cluster.nodes
    before = node.pid
    getattr(node, how)()
    assert gone(before)
    assert not node.running
    node.start()
    assert node.pid != before
    assert cluster.bootstrap == address
    produce(address, domain, ["after"])
    assert read(address, domain, 2) == ["before", "after"]


def test_a_paused_node_answers_nobody_until_it_is_resumed(cluster: Cluster) -> None:
    (node,) = cluster.nodes
    admin = AdminClient(client(cluster.bootstrap))
    node.pause()
    try:
        with pytest.raises(KafkaException):
            admin.list_topics(timeout=0.5)
        assert node.running
    finally:
        node.resume()
    assert set(admin.list_topics(timeout=15).brokers) == {0}


def test_three_nodes_go_on_without_one_that_was_killed_and_take_it_back(domain: str) -> None:
    with Cluster(nodes=3) as three:
        create(three.bootstrap, domain, replicas=3)
        produce(three.bootstrap, domain, ["all"])
        leader = AdminClient(client(three.bootstrap)).list_topics(domain, timeout=10)
        killed = three.nodes[leader.topics[domain].partitions[0].leader]
        killed.kill()
        produce(three.bootstrap, domain, ["two of three"])
        killed.start()
        assert read(three.bootstrap, domain, 2) == ["all", "two of three"]
        admin = AdminClient(client(three.bootstrap))

        def in_sync() -> int:
            return len(admin.list_topics(domain, timeout=10).topics[domain].partitions[0].isrs)

        until(lambda: in_sync() == 3)


def test_a_cluster_with_a_directory_goes_on_where_it_stopped(tmp_path: Path, domain: str) -> None:
    folder = tmp_path / "kafka"
    with Cluster(directory=folder) as first:
        address = first.bootstrap
        create(address, domain)
        produce(address, domain, ["kept"])
        pid = first.nodes[0].pid
    assert gone(pid)
    with pytest.raises(ConfigError, match="has 1 nodes, not 3"):
        Cluster(directory=folder, nodes=3).start()
    with Cluster(directory=folder) as second:
        assert second.bootstrap == address
        assert read(address, domain, 1) == ["kept"]


def test_a_taken_port_is_given_up_for_another() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        draws: list[list[Ports]] = []

        def draw(nodes: int) -> list[Ports]:
            (mine,) = draw_ports(nodes)
            draws.append([mine if draws else Ports(taken, mine.controller, mine.sasl)])
            return draws[-1]

        with Cluster(draw=draw) as running:
            assert len(draws) == 2
            assert running.bootstrap == f"127.0.0.1:{draws[1][0].plain}"


def test_a_broker_that_cannot_start_says_why(tmp_path: Path) -> None:
    data = tmp_path / "node-0" / "data"
    data.mkdir(parents=True)
    (data / "meta.properties").write_text("version=1\ncluster.id=AAAAAAAAAAAAAAAAAAAAAA\nnode.id=7\n")
    broken = Cluster(directory=tmp_path)
    with pytest.raises(
        UnavailableError, match=r"node 0 of the local Kafka ended with 1; its log ends:"
    ) as caught:
        broken.start()
    assert "Stored node id 7" in str(caught.value)
    running = [process.cmdline() for process in psutil.Process().children(recursive=True)]
    assert [command for command in running if str(tmp_path) in " ".join(command)] == []


@pytest.mark.parametrize("end", ["kill", "stdin"])
def test_when_the_owner_ends_no_process_and_no_folder_is_left(end: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pipelined.local.kafka"]
    environment = {"TMPDIR": str(tmp_path)}
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, stdin=pipe, stdout=pipe, text=True, cwd=ROOT, env={**os.environ, **environment}
    ) as owner:
        assert owner.stdin
        assert owner.stdout
        about = json.loads(owner.stdout.readline())
        family = [process.pid for process in psutil.Process(owner.pid).children(recursive=True)]
        assert set(about["pids"]) <= set(family)
        assert len(list(tmp_path.iterdir())) == 1
        if end == "kill":
            owner.kill()
        else:
            owner.stdin.close()
        until(lambda: all(gone(pid) for pid in family) and not list(tmp_path.iterdir()))
    assert (owner.returncode == 0) is (end == "stdin")


def test_the_runs_shared_kafka_answers(kafka_bootstrap: str, domain: str) -> None:
    create(kafka_bootstrap, domain)
    produce(kafka_bootstrap, domain, ["one"])
    assert read(kafka_bootstrap, domain, 1) == ["one"]

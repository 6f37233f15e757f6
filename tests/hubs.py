"""A local Kafka as an Event Hub in tests: its topics, what is sent to it, and what a source makes of it."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic

from pipelined.config import Config
from pipelined.config.leaves import built
from pipelined.local.kafka import Cluster
from pipelined.sources.contract import Page
from pipelined.sources.eventhub import EventhubSource
from pipelined.stages.contract import Output
from waiting import until

DEADLINE = 30.0


def event(number: int, **more: object) -> bytes:
    """An event; the same number is the same event."""
    trace = str(uuid.UUID(int=number))
    return json.dumps({"type": "a.b.statusOnly", "version": 1, "traceId": trace, "data": {}} | more).encode()


def numbers_of(outputs: Iterable[Output]) -> list[int]:
    """The numbers of the events that these are."""
    return [uuid.UUID((output.key or b"").decode()).int for output in outputs]


class Hub:
    """One topic of a local Kafka with a SASL_SSL listener."""

    def __init__(self, cluster: Cluster, name: str, folder: Path, partitions: int = 2) -> None:
        self.name = name
        self._cluster = cluster
        self._secret = folder / f"{name}.connection-string"
        self._secret.write_text(cluster.connection_string + "\n")
        self._admin = AdminClient({"bootstrap.servers": cluster.bootstrap})
        self._producer = Producer({"bootstrap.servers": cluster.bootstrap, "linger.ms": 1})
        self.make(partitions)

    def config(self, **changes: Any) -> Config:
        """A configuration that reads it; ``eventhub__topic="x"`` changes a key."""
        values: dict[str, Any] = {
            "kafka.host": "h1",
            "eventhub.bootstrap": self._cluster.sasl_bootstrap,
            "eventhub.topic": self.name,
            "eventhub.connection_string": f"file:{self._secret}",
            "eventhub.ca_file": str(self._cluster.ca_path),
            "eventhub.group": f"{self.name}-readers",
        }
        return built(values | {name.replace("__", "."): value for name, value in changes.items()})

    def make(self, partitions: int) -> None:
        """Make the topic."""
        self._admin.create_topics([NewTopic(self.name, partitions, 1)])[self.name].result(DEADLINE)
        until(lambda: self.name in self._admin.list_topics(timeout=DEADLINE).topics)

    def remove(self) -> None:
        """Delete the topic."""
        self._admin.delete_topics([self.name])[self.name].result(DEADLINE)
        until(lambda: self.name not in self._admin.list_topics(timeout=DEADLINE).topics)

    def grow(self, partitions: int) -> None:
        """Add partitions."""
        self._admin.create_partitions([NewPartitions(self.name, partitions)])[self.name].result(DEADLINE)
        self._producer = Producer({"bootstrap.servers": self._cluster.bootstrap, "linger.ms": 1})

    def expire(self, partition: int, before: int) -> None:
        """Remove what lies before an offset, as retention does."""
        where = TopicPartition(self.name, partition, before)
        self._admin.delete_records([where])[where].result(DEADLINE)

    def put(
        self,
        values: Iterable[bytes | None],
        partition: int | None = None,
        *,
        key: bytes | None = None,
        timestamp: int = 0,
    ) -> None:
        """Send these, in turns to partitions 0 and 1 unless told."""
        for number, value in enumerate(values):
            where = number % 2 if partition is None else partition
            while True:
                try:
                    self._producer.produce(self.name, value, key, partition=where, timestamp=timestamp)
                    break
                except BufferError:
                    self._producer.poll(0.1)
        assert self._producer.flush(DEADLINE) == 0

    def put_in_transaction(self, values: Iterable[bytes], partition: int, *, commit: bool = True) -> None:
        """Send these in a transaction of their own, which is committed or aborted."""
        producer = Producer(
            {"bootstrap.servers": self._cluster.bootstrap, "transactional.id": f"{self.name}-t"}
        )
        producer.init_transactions(DEADLINE)
        producer.begin_transaction()
        for value in values:
            producer.produce(self.name, value, partition=partition)
        producer.flush(DEADLINE)
        if commit:
            producer.commit_transaction(DEADLINE)
        else:
            producer.abort_transaction(DEADLINE)

    def group_offset(self, group: str, partition: int) -> int:
        """Where a group stands, as its lag tools see it; -1001 for nowhere."""
        consumer = Consumer({"bootstrap.servers": self._cluster.bootstrap, "group.id": group})
        try:
            return consumer.committed([TopicPartition(self.name, partition)], timeout=DEADLINE)[0].offset
        finally:
            consumer.close()


def taken(source: EventhubSource, count: int, patience: float = DEADLINE) -> tuple[list[Output], list[Page]]:
    """Fetch until so many events are there; the events, and the pages they came in."""
    outputs: list[Output] = []
    pages: list[Page] = []
    deadline = time.monotonic() + patience
    while len(outputs) < count:
        assert time.monotonic() < deadline, f"{len(outputs)} events of {count} came"
        page = source.fetch(0.2)
        if page is not None:
            outputs += page.outputs
            pages.append(page)
    return outputs, pages


def nothing_more(source: EventhubSource, seconds: float = 1.0) -> Sequence[Output]:
    """What still comes within so many seconds: nothing, as a rule."""
    outputs: list[Output] = []
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        page = source.fetch(0.2)
        if page is not None:
            outputs += page.outputs
    return outputs

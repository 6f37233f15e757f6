"""The real Kafka in tests: a small configuration, its topics, what stands on them, workers in threads."""

from __future__ import annotations

import dataclasses
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from pipelined.config.cluster import Kafka, Topic, Topics
from pipelined.config.tree import Config, Worker, Workers
from pipelined.config.work import Breaker, Retry
from pipelined.kafka import topics
from pipelined.kafka.notes import Note, read_note
from pipelined.kafka.settings import Names
from pipelined.stages.contract import Headers, Stage, Stream
from pipelined.stages.failures import Envelope
from pipelined.stats.slots import Child
from pipelined.workers.routing import Router
from pipelined.workers.runtime import Runtime
from records import slot
from waiting import until

DEADLINE = 30.0


def small(
    bootstrap: str, domain: str, partitions: int = 2, *, session_timeout_s: float = 6, **changes: Any
) -> Config:
    """A configuration of few partitions and short waits; ``changes`` replace whole sections."""
    topic = Topic(partitions=partitions)
    one = Topic(partitions=1)
    worker = Worker(batch_records=500, window_records=1000, drain_s=4.5)
    config = Config(
        domain=domain,
        kafka=Kafka(
            bootstrap=bootstrap,
            host="h1",
            session_timeout_s=session_timeout_s,
            transaction_timeout_s=min(5, session_timeout_s),
        ),
        topics=Topics(
            replication_factor=1,
            min_insync_replicas=1,
            events_raw=topic,
            events_ingested=topic,
            events_dlq=one,
            downloads_pending=topic,
            downloads_cached=topic,
            downloads_results=topic,
            downloads_retry=one,
            downloads_dlq=one,
            checkpoints=Topic(partitions=1, retention_hours=-1, compacted=True),
        ),
        retry=Retry(delays_s=(0.4,), jitter=0.0, pause_s=0.1),
        breaker=Breaker(dlq_run=10_000, dlq_window=10_000),
        workers=Workers(download=worker, event_writer=worker, retry_scheduler=worker),
    )
    return dataclasses.replace(config, **changes)


@contextmanager
def declared(config: Config) -> Iterator[Config]:
    """The topics of the configuration on the cluster, as long as they are needed."""
    topics.apply(config, topics.plan(config))
    until(lambda: not topics.plan(config), "new topics do not appear")
    try:
        yield config
    finally:
        admin = AdminClient({"bootstrap.servers": config.kafka.bootstrap})
        for gone in admin.delete_topics([topic.name for topic in topics.declared(config)]).values():
            gone.exception(DEADLINE)


class Message(NamedTuple):
    """What stands on a topic; ``timestamp`` in ms."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes
    headers: Headers
    timestamp: int

    def header(self, name: str) -> str | None:
        """The last header of that name as text."""
        for key, value in reversed(self.headers):
            if key == name and isinstance(value, bytes):
                return value.decode()
        return None


def read(config: Config, stream: str, tier: int = 0) -> list[Message]:
    """Everything committed on a stream's topic now, by partition and offset."""
    topic = Names(config).topic(stream, tier)
    consumer = Consumer(
        {
            "bootstrap.servers": config.kafka.bootstrap,
            "group.id": f"{config.domain}.test-reader",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "fetch.wait.max.ms": 10,
        }
    )
    found: list[Message] = []
    try:
        partitions = consumer.list_topics(topic, timeout=DEADLINE).topics[topic].partitions
        consumer.assign([TopicPartition(topic, number, 0) for number in partitions])
        unfinished = set(partitions)
        deadline = time.monotonic() + DEADLINE
        while unfinished:
            assert time.monotonic() < deadline, f"{topic} cannot be read to its end"
            for message in consumer.consume(1000, 0.05):
                error = message.error()
                if error is None:
                    partition, offset = message.partition(), message.offset()
                    assert partition is not None
                    assert offset is not None
                    found.append(
                        Message(
                            partition,
                            offset,
                            message.key(),
                            message.value() or b"",
                            list(cast(Headers, message.headers() or [])),
                            message.timestamp()[1],
                        )
                    )
                else:
                    assert error.code() == KafkaError._PARTITION_EOF, error
                    unfinished.discard(message.partition() or 0)
    finally:
        consumer.close()
    return sorted(found, key=lambda m: (m.partition, m.offset))


def values(config: Config, stream: str, tier: int = 0) -> list[bytes]:
    """The values of ``read``."""
    return [message.value for message in read(config, stream, tier)]


def produce(
    config: Config,
    stream: str,
    given: Iterable[bytes],
    *,
    partition: int | None = None,
    key: bytes | None = None,
    headers: Headers | None = None,
    tier: int = 0,
    timestamp: int | None = None,
) -> None:
    """Put values on a stream's topic, without a transaction; spread over its partitions unless told."""
    producer = Producer({"bootstrap.servers": config.kafka.bootstrap, "linger.ms": 1})
    count = Names(config).section(stream).partitions
    more: dict[str, Any] = {} if timestamp is None else {"timestamp": timestamp}
    for number, value in enumerate(given):
        where = number % count if partition is None else partition
        producer.produce(
            Names(config).topic(stream, tier), value, key, partition=where, headers=headers or [], **more
        )
        producer.poll(0)
    assert producer.flush(DEADLINE) == 0


def committed(config: Config, worker_type: str, stream: str) -> dict[int, tuple[int, Note | None]]:
    """Where the group of a worker type goes on: next offset and note by partition, -1001 for none."""
    names = Names(config)
    consumer = Consumer({"bootstrap.servers": config.kafka.bootstrap, "group.id": names.group(worker_type)})
    try:
        places = [
            TopicPartition(names.topic(stream), number) for number in range(names.section(stream).partitions)
        ]
        return {
            place.partition: (place.offset, _note(place))
            for place in consumer.committed(places, timeout=DEADLINE)
        }
    finally:
        consumer.close()


def _note(place: TopicPartition) -> Note | None:
    if not place.metadata:
        return None
    return read_note(place.topic, place.partition, place.offset, place.metadata)


class Working:
    """A runtime in a thread of the test, as a worker process would run it."""

    def __init__(self, make: Callable[[Child, Callable[[], bool]], Any]) -> None:
        self.stats = slot()
        self.stats.begin(os.getpid())
        self.error: BaseException | None = None
        self._stop = threading.Event()
        self.runtime = make(self.stats, self._stop.is_set)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.runtime.run()
        except BaseException as error:  # noqa: BLE001 - what ended it is what the test looks at
            self.error = error

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._thread.is_alive()

    def ready(self) -> Working:
        """Wait until it says that it is ready."""
        until(lambda: self.stats.is_ready or not self.alive, "the worker did not become ready")
        if self.error is not None:
            raise self.error
        return self

    def ended(self) -> BaseException | None:
        """Wait until it has ended by itself; what ended it."""
        self._thread.join(DEADLINE)
        assert not self.alive, "the worker did not end"
        return self.error

    def stop(self) -> None:
        """Tell it to stop; it must end in time and well."""
        self._stop.set()
        error = self.ended()
        if error is not None:
            raise error


@contextmanager
def working(
    config: Config,
    stage: Stage,
    *,
    index: int = 0,
    stream: str = Stream.PENDING,
    dead_stream: str = Stream.DLQ,
) -> Iterator[Working]:
    """A ready Kafka → Kafka worker with this stage; stopped at the end, however it ends."""
    envelope = Envelope(stage.name, Names(config).group(stage.name), "h1")

    def make(stats: Child, should_stop: Callable[[], bool]) -> Runtime:
        return Runtime(
            config,
            index=index,
            stage=stage,
            router=Router(config, envelope, dead_stream),
            streams=[stream],
            stats=stats,
            should_stop=should_stop,
        )

    worker = Working(make)
    try:
        yield worker.ready()
    finally:
        worker._stop.set()
        worker._thread.join(DEADLINE)
        assert not worker.alive, "the worker did not end"


def numbered(count: int, start: int = 0) -> Sequence[bytes]:
    """So many different values."""
    return [b"%d" % number for number in range(start, start + count)]

"""Connections to Kafka for reading alone: no group, no commits, committed records only."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Final

from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from pipelined.config.secrets import resolve
from pipelined.config.tree import Config
from pipelined.errors import UnavailableError

__all__ = ["Connection", "Place", "is_end", "is_missing", "receive"]

#: A topic and the number of a partition.
Place = tuple[str, int]

_TIMEOUT = 15.0
#: Of every client, whatever cluster it is of.
COMMON: Final[Mapping[str, Any]] = {
    "client.id": "pipelined-ledger",
    "allow.auto.create.topics": False,
    "socket.keepalive.enable": True,
    "reconnect.backoff.max.ms": 2000,
    "log_level": 4,
}
_log = logging.getLogger("pipelined.ledger")
_offset: Any = OffsetSpec  # its constructors carry no types

# The client mends these by itself, and tells them on the way; a partition that is new, or moves, has no
# leader for a moment.
_PASSING = frozenset(
    {
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._RESOLVE,
        KafkaError._TIMED_OUT,
        KafkaError._TRANSPORT,
        KafkaError.BROKER_NOT_AVAILABLE,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NETWORK_EXCEPTION,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.OFFSET_NOT_AVAILABLE,
        KafkaError.REPLICA_NOT_AVAILABLE,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.UNKNOWN_LEADER_EPOCH,
    }
)
_MISSING = frozenset(
    {
        KafkaError._UNKNOWN_PARTITION,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError._AUTO_OFFSET_RESET,
        KafkaError.OFFSET_OUT_OF_RANGE,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
    }
)


class Connection:
    """What the ledger asks of a cluster. ``UnavailableError`` when it does not answer.

    ``settings`` are those of a client of another cluster than the pipeline's own.
    """

    def __init__(self, config: Config, settings: Mapping[str, Any] | None = None) -> None:
        self._config = config
        self._settings = {**COMMON, **(_settings(config) if settings is None else settings)}
        self.bootstrap = str(self._settings["bootstrap.servers"])
        self._admin = AdminClient(self._settings, logger=_log)

    def topics(self) -> dict[str, list[int]]:
        """The partitions of every topic there is."""
        try:
            topics = self._admin.list_topics(timeout=_TIMEOUT).topics
        except KafkaException as error:
            raise self._unreachable(error) from error
        return {str(name): sorted(found.partitions) for name, found in topics.items()}

    def first(self, places: Sequence[Place]) -> dict[Place, int]:
        """The offset of the oldest record of each partition that has not been deleted."""
        return self._offsets(places, _offset.earliest())

    def end(self, places: Sequence[Place]) -> dict[Place, int]:
        """The offset behind the last record of each partition that readers may see."""
        return self._offsets(places, _offset.latest())

    def written(self, places: Sequence[Place]) -> dict[Place, int]:
        """The offset behind the last record, whether its transaction has ended or not."""
        return self._offsets(places, _offset.latest(), IsolationLevel.READ_UNCOMMITTED)

    def consumer(self, places: Sequence[tuple[str, int, int]]) -> Consumer:
        """A consumer of these partitions from these offsets on."""
        kafka = self._config.kafka
        consumer = Consumer(
            {
                **self._settings,
                "group.id": f"pipelined-ledger-{uuid.uuid4()}",
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "error",
                "isolation.level": "read_committed",
                "queued.max.messages.kbytes": kafka.fetch_queue_kbytes,
                "receive.message.max.bytes": max(100_000_000, kafka.max_message_bytes * 2),
                # At its default of 1000 a full queue costs a factor of three in throughput.
                "fetch.queue.backoff.ms": 10,
                "fetch.wait.max.ms": 100,
            },
            logger=_log,
        )
        consumer.assign([TopicPartition(*place) for place in places])
        return consumer

    def _offsets(
        self, places: Sequence[Place], which: Any, isolation: IsolationLevel = IsolationLevel.READ_COMMITTED
    ) -> dict[Place, int]:
        asked = {TopicPartition(*place): which for place in places}
        deadline = time.monotonic() + _TIMEOUT
        while True:
            try:
                answers = self._admin.list_offsets(asked, isolation_level=isolation, request_timeout=_TIMEOUT)
                return {
                    (place.topic, place.partition): answer.result(_TIMEOUT).offset
                    for place, answer in answers.items()
                }
            except (KafkaException, TimeoutError) as error:
                passing = isinstance(error, KafkaException) and error.args[0].code() in _PASSING
                if time.monotonic() > deadline or not passing:
                    raise self._unreachable(error) from error
                time.sleep(0.1)
                # It would go on asking with the leaders and epochs that it knows.
                self.topics()

    def _unreachable(self, error: Exception) -> UnavailableError:
        return UnavailableError(
            f"Kafka at {self.bootstrap} does not answer the ledger ({error or 'time-out'}); check that it "
            "runs and that kafka.bootstrap names it"
        )


def receive(consumer: Consumer, timeout: float, most: int = 5000) -> list[Any]:
    """The next messages, waiting at most ``timeout`` seconds for the first; ends and missing places included.

    Every other error that the client does not mend is an ``UnavailableError``.
    """
    messages: list[Any] = consumer.consume(1, timeout)
    if messages and most > 1:
        messages += consumer.consume(most - 1, 0)
    found = []
    for message in messages:
        error = message.error()
        if error is None or is_end(message) or is_missing(message):
            found.append(message)
        elif error.fatal() or error.code() not in _PASSING:
            raise UnavailableError(f"the ledger can read no further: {error.str()}")
    return found


def is_end(message: Any) -> bool:
    """Whether it says that the partition has no further record at the moment."""
    return bool(message.error() and message.error().code() == KafkaError._PARTITION_EOF)


def is_missing(message: Any) -> bool:
    """Whether it says that there is no such topic, partition or offset."""
    return bool(message.error() and message.error().code() in _MISSING)


def _settings(config: Config) -> dict[str, Any]:
    kafka = config.kafka
    settings: dict[str, Any] = {
        "bootstrap.servers": kafka.bootstrap,
        "security.protocol": kafka.security_protocol,
    }
    if kafka.ca_file:
        settings["ssl.ca.location"] = kafka.ca_file
    if kafka.security_protocol.startswith("SASL"):
        settings["sasl.mechanisms"] = kafka.sasl_mechanism
        settings["sasl.username"] = kafka.sasl_username
        settings["sasl.password"] = resolve(kafka.sasl_password)
    return settings

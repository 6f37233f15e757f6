"""How old what nobody has read yet is: the first record behind an offset of each partition."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import closing

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from pipelined.config import Config
from pipelined.errors import UnavailableError
from pipelined.kafka.lag import onlooker
from pipelined.kafka.settings import Names, consumer_settings

__all__ = ["committed_offsets", "oldest_unread"]

_TIMEOUT = 10.0

Partition = tuple[str, int]


def committed_offsets(config: Config, worker_type: str, stream: str) -> dict[Partition, int]:
    """The next offset of the worker type's group in each partition of its topic, 0 where it has none.

    Raises UnavailableError where the cluster does not answer.
    """
    names = Names(config)
    topic = names.topic(stream)
    asked = [TopicPartition(topic, number) for number in range(names.section(stream).partitions)]
    try:
        with closing(onlooker(config, names.group(worker_type))) as consumer:
            found = consumer.committed(asked, timeout=_TIMEOUT)
    except KafkaException as error:
        raise _unavailable(error) from error
    return {(place.topic, place.partition): max(0, place.offset) for place in found}


def oldest_unread(config: Config, offsets: Mapping[Partition, int]) -> int | None:
    """The least time (ms) among the first committed records at or behind these offsets; None: there is none.

    Raises UnavailableError where the cluster does not answer.
    """
    settings = consumer_settings(config, f"{config.domain}.unread", None) | {"fetch.wait.max.ms": 10}
    times: list[int] = []
    try:
        with closing(Consumer(settings)) as consumer:
            places = []
            for (topic, number), offset in offsets.items():
                low, _ = consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=_TIMEOUT)
                places.append(TopicPartition(topic, number, max(low, offset)))
            consumer.assign(places)
            left = set(offsets)
            deadline = time.monotonic() + _TIMEOUT
            while left:
                if time.monotonic() > deadline:
                    raise KafkaException(KafkaError(KafkaError._TIMED_OUT, "no answer"))
                for message in consumer.consume(len(left), 0.05):
                    error, place = message.error(), (message.topic() or "", message.partition() or 0)
                    if error is not None and error.code() != KafkaError._PARTITION_EOF:
                        raise KafkaException(error)
                    if error is None and place in left:
                        times.append(message.timestamp()[1])
                    left.discard(place)
    except KafkaException as error:
        raise _unavailable(error) from error
    return min(times, default=None)


def _unavailable(error: KafkaException) -> UnavailableError:
    return UnavailableError(f"Kafka does not tell what is unread: {error.args[0].str()}")

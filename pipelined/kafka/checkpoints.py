"""The positions of the sources: the last committed record of a key on the compacted checkpoints topic."""

from __future__ import annotations

import time
from contextlib import closing
from typing import NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from pipelined.config import Config
from pipelined.errors import UnavailableError
from pipelined.kafka.settings import Names, consumer_settings

__all__ = ["Checkpoint", "find_checkpoint", "read_checkpoint"]

_TIMEOUT = 15.0
#: The broker looks for transactions that are over time once in so many seconds.
_ABORT_INTERVAL = 10.0
#: How far back from the end to look first: a source writes often, and its last record is near.
_STEPS = (1_000, 100_000)


class Checkpoint(NamedTuple):
    """A position, and when it was written (ms since the epoch)."""

    timestamp: int
    value: bytes | None


def read_checkpoint(config: Config, key: str) -> bytes | None:
    """The value last committed under ``key``, None where there is none; see :func:`find_checkpoint`."""
    found = find_checkpoint(config, key)
    return found.value if found else None


def find_checkpoint(config: Config, key: str) -> Checkpoint | None:
    """What was last committed under ``key``, None where there is nothing.

    Call it after the transactional id of the writer was taken over: only then is nothing of a
    predecessor still under way. Transactions of others that are open on the topic are waited for: the
    record looked for may lie behind their beginning, and be hidden as long. Raises UnavailableError where
    that, or the brokers' answer, takes too long.
    """
    topic = Names(config).topic("checkpoints")
    wait = config.kafka.transaction_timeout_s + _ABORT_INTERVAL
    found = []
    try:
        with closing(_consumer(config, "read_uncommitted")) as consumer:
            spans = _spans(consumer, topic)
        with closing(_consumer(config, "read_committed")) as consumer:
            for number, (low, high) in spans.items():
                place = TopicPartition(topic, number)
                if (last := _last(consumer, place, low, high, key.encode(), wait)) is not None:
                    found.append(last)
    except KafkaException as error:
        msg = f"the positions on {topic} cannot be read: {error.args[0].str()}"
        raise UnavailableError(msg) from error
    # A topic that got more partitions may have the key on two of them.
    return max(found, key=lambda each: each.timestamp, default=None)


def _consumer(config: Config, isolation: str) -> Consumer:
    settings = consumer_settings(config, f"{config.domain}.checkpoints", None)
    # The end of a partition is told after this wait.
    return Consumer(settings | {"isolation.level": isolation, "fetch.wait.max.ms": 10})


def _spans(consumer: Consumer, topic: str) -> dict[int, tuple[int, int]]:
    """The first offset and the end of each partition's log, what is not committed yet included."""
    partitions = consumer.list_topics(topic, timeout=_TIMEOUT).topics[topic].partitions
    if not partitions:
        msg = f"the topic {topic} does not exist; run `pipelinectl topics apply`"
        raise UnavailableError(msg)
    return {
        number: consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=_TIMEOUT)
        for number in partitions
    }


def _last(
    consumer: Consumer, place: TopicPartition, low: int, high: int, key: bytes, wait: float
) -> Checkpoint | None:
    """The last record of the key in the span, looked for from its end."""
    for step in (*_STEPS, high):
        start = max(low, high - step)
        if (found := _last_between(consumer, place, start, high, key, wait)) is not None or start == low:
            return found
        high = start
    return None


def _last_between(
    consumer: Consumer, place: TopicPartition, start: int, end: int, key: bytes, wait: float
) -> Checkpoint | None:
    found = None
    consumer.assign([TopicPartition(place.topic, place.partition, start)])
    deadline = time.monotonic() + wait
    reached = start
    while reached < end:
        # `consume(1000, 0.2)` alone would wait its whole time for the thousandth.
        messages = [*consumer.consume(1, 0.2), *consumer.consume(1000, 0)]
        if messages:
            deadline = time.monotonic() + wait
        elif time.monotonic() > deadline:
            msg = (
                f"the positions on {place.topic} cannot be read: a transaction on it has not ended in "
                f"{wait:g} s. If it stays so, look for a hanging one with kafka-transactions.sh, and abort it"
            )
            raise UnavailableError(msg)
        for message in messages:
            error, offset = message.error(), message.offset() or 0
            if error is None:
                if message.key() == key and offset < end:
                    found = Checkpoint(message.timestamp()[1], message.value())
                reached = max(reached, offset + 1)
            elif error.code() == KafkaError._PARTITION_EOF:
                # The end is an event of its own: the last offsets may be markers, which no message shows.
                reached = max(reached, offset)
            else:
                raise KafkaException(error)
    return found

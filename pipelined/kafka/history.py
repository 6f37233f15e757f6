"""Reading back what a partition of ``events.ingested`` holds: the ingester's memory, and nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from confluent_kafka import OFFSET_END, Consumer, KafkaError, KafkaException, TopicPartition

from pipelined.config import Config
from pipelined.errors import UnavailableError
from pipelined.kafka.settings import Names, consumer_settings

__all__ = ["read_back"]

_TIMEOUT = 10.0
_BATCH = 10000
_NO_LEADER_YET = frozenset({KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE})


def read_back(
    config: Config, stream: str, hours: float, beat: Callable[[], None]
) -> Callable[[int], Iterator[list[tuple[bytes, int]]]]:
    """A reader of one partition's last ``hours``, up to what is committed now: keys and arrival (ms).

    The time is counted back from the partition's last record, not from now, so that after a long stop the
    backlog is still judged against the whole horizon.
    """
    topic = Names(config).topic(stream)

    def read(partition: int) -> Iterator[list[tuple[bytes, int]]]:
        # Without membership: nothing is committed, and nothing is asked of the coordinator.
        settings = consumer_settings(config, f"{config.domain}.read-back", None)
        # A broker answers a fetch at the end only after this wait: three times in a read, for each partition.
        consumer = Consumer(settings | {"fetch.wait.max.ms": 10})
        try:
            place = TopicPartition(topic, partition)
            low, high = _ends(consumer, place)
            if high <= low:
                return
            start = _start(consumer, place, low, high, hours, beat)
            yield from _records(consumer, topic, partition, start, high, beat)
        except KafkaException as error:
            msg = f"{topic}/{partition} could not be read back: {error.args[0].str()}; starting anew"
            raise UnavailableError(msg) from error
        finally:
            consumer.close()

    return read


def _ends(consumer: Consumer, place: TopicPartition) -> tuple[int, int]:
    """The first and the last offset. A topic just made has no leader for a moment."""
    deadline = time.monotonic() + _TIMEOUT
    while True:
        try:
            low, high = consumer.get_watermark_offsets(place, timeout=_TIMEOUT)
        except KafkaException as error:
            if error.args[0].code() not in _NO_LEADER_YET or time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return low, high


def _start(
    consumer: Consumer, place: TopicPartition, low: int, high: int, hours: float, beat: Callable[[], None]
) -> int:
    """The first offset within the horizon of the partition's last record."""
    newest = 0
    # The last offsets may be transaction markers, which are never delivered: look a little further back.
    for back in (100, 10_000, high - low):
        for batch in _records(consumer, place.topic, place.partition, max(low, high - back), high, beat):
            newest = max(newest, *(arrival for _, arrival in batch))
        if newest or high - back <= low:
            break
    since = TopicPartition(place.topic, place.partition, max(0, newest - round(hours * 3_600_000)))
    found = consumer.offsets_for_times([since], timeout=_TIMEOUT)[0]
    return high if found.offset == OFFSET_END else max(low, found.offset)


def _records(
    consumer: Consumer, topic: str, partition: int, start: int, end: int, beat: Callable[[], None]
) -> Iterator[list[tuple[bytes, int]]]:
    consumer.assign([TopicPartition(topic, partition, start)])
    # The end is an event of its own: the last offsets may be transaction markers, which no message shows.
    reached = start >= end
    while not reached:
        beat()
        batch = []
        for message in consumer.consume(_BATCH, 0.05):
            error = message.error()
            if error is not None:
                if error.code() != KafkaError._PARTITION_EOF:
                    raise KafkaException(error)
                reached = True
                continue
            key, offset = message.key(), message.offset()
            if offset is None or offset >= end - 1:
                reached = True
            if key is not None and offset is not None and offset < end:
                batch.append((key, message.timestamp()[1]))
        if batch:
            yield batch
    consumer.unassign()

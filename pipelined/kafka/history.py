"""Reading back what a partition of ``events.ingested`` holds: the ingester's memory, and nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

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
) -> Callable[[Sequence[int]], Iterator[tuple[int, list[tuple[bytes, int]]]]]:
    """A reader of the last ``hours`` of some partitions, up to what is committed now.

    It yields, in batches, a partition's number and keys with their arrival (ms), each partition in order.
    The time is counted back from the partition's last record, not from now, so that after a long stop the
    backlog is still judged against the whole horizon.
    """
    topic = Names(config).topic(stream)

    def read(numbers: Sequence[int]) -> Iterator[tuple[int, list[tuple[bytes, int]]]]:
        # Without membership: nothing is committed, and nothing is asked of the coordinator.
        settings = consumer_settings(config, f"{config.domain}.read-back", None)
        # A broker answers a fetch at the end of a partition only after this wait.
        consumer = Consumer(settings | {"fetch.wait.max.ms": 10})
        try:
            spans = {number: _ends(consumer, TopicPartition(topic, number)) for number in numbers}
            starts = _starts(consumer, topic, spans, hours, beat)
            yield from _records(consumer, topic, starts, beat)
        except KafkaException as error:
            msg = f"{topic} could not be read back: {error.args[0].str()}; starting anew"
            raise UnavailableError(msg) from error
        finally:
            consumer.close()

    return read


#: First and last offset of a partition that are to be read, the last one exclusive.
_Span = tuple[int, int]


def _ends(consumer: Consumer, place: TopicPartition) -> _Span:
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


def _starts(
    consumer: Consumer, topic: str, spans: dict[int, _Span], hours: float, beat: Callable[[], None]
) -> dict[int, _Span]:
    """Each span, cut down to the horizon of its last record."""
    newest: dict[int, int] = {}
    asked = {number: span for number, span in spans.items() if span[0] < span[1]}
    # The last offsets may be transaction markers, which are never delivered: look further back then.
    for back in (100, 10_000, max((high - low for low, high in asked.values()), default=0)):
        tails = {n: (max(low, high - back), high) for n, (low, high) in asked.items() if n not in newest}
        for number, batch in _records(consumer, topic, tails, beat):
            newest[number] = max(newest.get(number, 0), *(arrival for _, arrival in batch))
    since = [
        TopicPartition(topic, number, max(0, arrival - round(hours * 3_600_000)))
        for number, arrival in newest.items()
    ]
    found = consumer.offsets_for_times(since, timeout=_TIMEOUT) if since else []
    starts: dict[int, _Span] = {}
    for place in found:
        low, high = asked[place.partition]
        starts[place.partition] = (high if place.offset == OFFSET_END else max(low, place.offset), high)
    return starts


def _records(
    consumer: Consumer, topic: str, spans: dict[int, _Span], beat: Callable[[], None]
) -> Iterator[tuple[int, list[tuple[bytes, int]]]]:
    """Everything within the spans, all partitions at once."""
    ends = {number: end for number, (start, end) in spans.items() if start < end}
    consumer.assign([TopicPartition(topic, number, spans[number][0]) for number in ends])
    # The end is an event of its own: the last offsets may be transaction markers, which no message shows.
    reading = set(ends)
    while reading:
        beat()
        messages = consumer.consume(1, 0.1)
        messages += consumer.consume(_BATCH, 0)
        batches: dict[int, list[tuple[bytes, int]]] = {}
        for message in messages:
            error, number = message.error(), message.partition() or 0
            if error is not None:
                if error.code() != KafkaError._PARTITION_EOF:
                    raise KafkaException(error)
                reading.discard(number)
                continue
            key, offset = message.key(), message.offset() or 0
            if offset >= ends[number] - 1:
                reading.discard(number)
            if key is not None and offset < ends[number]:
                batches.setdefault(number, []).append((key, message.timestamp()[1]))
        yield from batches.items()
    consumer.unassign()

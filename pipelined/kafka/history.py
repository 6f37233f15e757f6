"""Reading back what a partition of ``events.ingested`` holds: the ingester's memory, and nothing else."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import cast

from confluent_kafka import OFFSET_END, Consumer, KafkaError, KafkaException, Message, TopicPartition

from pipelined.config import Config
from pipelined.errors import ConfigError, UnavailableError
from pipelined.kafka.layout import Layout, difference, read_layout
from pipelined.kafka.settings import Names, consumer_settings

__all__ = ["History", "Span", "newest_arrivals", "whole_spans"]

_logger = logging.getLogger("pipelined.kafka")

_TIMEOUT = 10.0
_BATCH = 10000
_NO_LEADER_YET = frozenset({KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE})
#: The broker looks for transactions that have timed out every so often (its default), in seconds.
_ABORT_INTERVAL = 10.0

#: First and last offset of a partition that are to be read, the last one exclusive.
Span = tuple[int, int]
Beat = Callable[[], None]
#: Of some records: keys, arrivals (ms), and the values of the header ``source``.
_Read = tuple[list[bytes], list[int], list[bytes]]
_Headers = list[tuple[str, str | bytes | None]]
#: Stands for the headers of a record without any.
_NONE: _Headers = [("", None)]


class History:
    """A reader of the last ``hours`` of some partitions, up to what stands on them now.

    The time is counted back from the partition's last record, not from now, so that after a long stop the
    backlog is still judged against the whole horizon.
    """

    def __init__(self, config: Config, hours: float, beat: Beat) -> None:
        self._config = config
        self._names = Names(config)
        self._horizon = round(hours * 3_600_000)
        self._beat = beat
        self._layout: Layout | None = None

    @property
    def moving(self) -> tuple[int, int]:
        """The number of partitions, and the arrival (ms) up to which a record may not lie where its key
        belongs, because the topics were grown; (0, 0) where they never were. As of the last reading.
        """
        layout = self._layout
        if layout is None or not layout.ends:
            return (0, 0)
        return (layout.partitions, layout.last_arrival + self._horizon)

    def __call__(self, numbers: Sequence[int]) -> Iterator[tuple[int | None, *_Read]]:
        """Yield, in batches, a partition's number, and keys, arrivals (ms) and sources, each in order.

        Before them, numbered None, what all partitions held before the topics were last grown, as long as
        that lies within the horizon; its arrivals are that of the growth. Raises ConfigError where the
        topics were grown unrecorded: duplicates could not be told then.
        """
        if not numbers:
            return
        topic = self._names.topic("events_ingested")
        settings = consumer_settings(self._config, f"{self._config.domain}.read-back", None)
        # Without membership: nothing is committed, and nothing is asked of the coordinator. A broker
        # answers a fetch at the end of a partition only after the wait.
        consumer = Consumer(settings | {"fetch.wait.max.ms": 10})
        try:
            self._layout = layout = self._checked(consumer)
            wait = self._config.kafka.transaction_timeout_s + _ABORT_INTERVAL
            spans = whole_spans(self._config, numbers)
            newest = newest_arrivals(consumer, topic, spans, wait, self._beat)
            if layout.ends and min(newest.values()) <= self.moving[1]:
                yield from self._before(consumer, topic, layout, wait)
            starts = _starts(consumer, topic, spans, newest, self._horizon)
            doubtful = {n for n, (start, _) in starts.items() if 0 < start == spans[n][0]}
            cut = []
            for number, keys, arrivals, sources in _records(consumer, topic, starts, wait, self._beat):
                if number in doubtful:
                    doubtful.discard(number)
                    if min(arrivals) > newest[number] - self._horizon:
                        cut.append(number)
                yield number, keys, arrivals, sources
            if cut:
                _warn(topic, cut)
        except KafkaException as error:
            msg = f"{topic} could not be read back: {error.args[0].str()}; starting anew"
            raise UnavailableError(msg) from error
        finally:
            consumer.close()

    def _checked(self, consumer: Consumer) -> Layout:
        names = [self._names.topic("events_raw"), self._names.topic("events_ingested")]
        raw, ingested = (len(consumer.list_topics(n, timeout=_TIMEOUT).topics[n].partitions) for n in names)
        layout = read_layout(self._config)
        wrong = difference(layout, raw, ingested)
        if wrong or layout is None:
            raise ConfigError(
                f"{names[0]}: {wrong}; events that came since may be in twice (`pipelinectl tables check`). "
                "Stop the event-ingester on every host (`pipelinectl stop event-ingester`), declare the "
                "number in the configuration, run `pipelinectl topics apply`, and start it again"
            )
        return layout

    def _before(
        self, consumer: Consumer, topic: str, layout: Layout, wait: float
    ) -> Iterator[tuple[None, *_Read]]:
        began, count = time.monotonic(), 0
        spans = whole_spans(self._config, range(len(layout.ends)))
        spans = {number: (low, min(high, layout.ends[number])) for number, (low, high) in spans.items()}
        newest = {number: arrival for number, arrival in enumerate(layout.newest) if arrival >= 0}
        starts = _starts(consumer, topic, spans, newest, self._horizon)
        for _, keys, _, sources in _records(consumer, topic, starts, wait, self._beat):
            count += len(keys)
            yield None, keys, [layout.last_arrival] * len(keys), sources
        _logger.info(
            "%d trace ids of all partitions of %s read back in %.2f s: it was grown to %d partitions at %s",
            count,
            topic,
            time.monotonic() - began,
            layout.partitions,
            _moment(layout.since),
        )


def _warn(topic: str, cut: Sequence[int]) -> None:
    """The topic does not reach back as far as the horizon."""
    _logger.warning(
        "partitions %s of %s begin within the horizon: what they held before was deleted. An event taken "
        "then is taken again when it comes again now; `pipelinectl tables check` finds it. Keep the topic "
        "(topics.events_ingested.retention_hours) for longer than the horizon (ingest.dedup_horizon_hours) "
        "and the longest stop together",
        ", ".join(map(str, sorted(cut))),
        topic,
        extra={"topic": topic},
    )


def whole_spans(config: Config, numbers: Sequence[int]) -> dict[int, Span]:
    """All there is on partitions of ``events.ingested``, what is not committed yet included.

    The end is the log's, not that of the committed records: a transaction that is committed may have its
    offsets visible before its records are, each on a broker of its own.
    """
    topic = Names(config).topic("events_ingested")
    settings = consumer_settings(config, f"{config.domain}.read-back", None)
    consumer = Consumer(settings | {"isolation.level": "read_uncommitted"})
    try:
        return {number: _ends(consumer, TopicPartition(topic, number)) for number in numbers}
    finally:
        consumer.close()


def _ends(consumer: Consumer, place: TopicPartition) -> Span:
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


def newest_arrivals(
    consumer: Consumer, topic: str, spans: Mapping[int, Span], wait: float, beat: Beat
) -> dict[int, int]:
    """The newest arrival (ms) among the last records of each partition, -1 where there is none."""
    newest = dict.fromkeys(spans, -1)
    # The last offsets may be transaction markers, which are never delivered: look further back then.
    for back in (100, 10_000, max((high - low for low, high in spans.values()), default=0)):
        tails = {n: (max(low, high - back), high) for n, (low, high) in spans.items() if newest[n] < 0}
        for number, _, arrivals, _ in _records(consumer, topic, tails, wait, beat):
            newest[number] = max(newest[number], *arrivals)
    return newest


def _starts(
    consumer: Consumer, topic: str, spans: Mapping[int, Span], newest: Mapping[int, int], horizon: int
) -> dict[int, Span]:
    """Each span that holds anything, cut down to the horizon of its newest arrival."""
    since = [
        TopicPartition(topic, number, max(0, arrival - horizon))
        for number, arrival in newest.items()
        if arrival >= 0
    ]
    found = consumer.offsets_for_times(since, timeout=_TIMEOUT) if since else []
    starts: dict[int, Span] = {}
    for place in found:
        low, high = spans[place.partition]
        starts[place.partition] = (high if place.offset == OFFSET_END else max(low, place.offset), high)
    return starts


def _records(
    consumer: Consumer, topic: str, spans: Mapping[int, Span], wait: float, beat: Beat
) -> Iterator[tuple[int, *_Read]]:
    """Everything committed within the spans, all partitions at once.

    A transaction that is open within them is waited for, ``wait`` seconds at most: by then the broker has
    ended it.
    """
    ends = {number: end for number, (start, end) in spans.items() if start < end}
    consumer.assign([TopicPartition(topic, number, spans[number][0]) for number in ends])
    reading = set(ends)
    deadline = time.monotonic() + wait
    while reading:
        beat()
        messages = consumer.consume(1, 0.1)
        messages += consumer.consume(_BATCH, 0)
        if messages:
            deadline = time.monotonic() + wait
        elif time.monotonic() > deadline:
            msg = (
                f"{topic} could not be read back: a transaction on partitions "
                f"{', '.join(map(str, sorted(reading)))} has not ended in {wait:g} s; starting anew. If it "
                "stays so, look with kafka-transactions.sh for one that hangs, and abort it"
            )
            raise UnavailableError(msg)
        for number, messages_of in _runs(messages):
            run, last, end = messages_of, messages_of[-1], ends[number]
            # The end is an event of its own: the last offsets may be markers, which no message shows.
            if (last.offset() or 0) >= end - (last.error() is None):
                reading.discard(number)
                run = [m for m in run if (m.offset() or 0) < end]
            keys = list(map(Message.key, run))
            if None in keys:  # the news of an end, or a record that is none of ours
                run = [m for m in run if m.error() is None and m.key() is not None]
                keys = list(map(Message.key, run))
            if keys:
                arrivals = [at for _, at in map(Message.timestamp, run)]
                yield number, cast(list[bytes], keys), arrivals, _sources(run)
    consumer.unassign()


def _sources(messages: list[Message]) -> list[bytes]:
    """What the ingester wrote as the source of each event."""
    headers = (cast(_Headers, message.headers() or _NONE) for message in messages)
    # It writes it last.
    return [
        found[-1][1] if found[-1][0] == "source" and isinstance(found[-1][1], bytes) else _source(found)
        for found in headers
    ]


def _source(headers: _Headers) -> bytes:
    return next((value for name, value in headers if name == "source" and isinstance(value, bytes)), b"")


def _runs(messages: list[Message]) -> Iterator[tuple[int, list[Message]]]:
    """The messages, as they come, in runs of one partition; raises the errors among them."""
    start = 0
    for number, same in itertools.groupby(map(Message.partition, messages)):
        end = start + sum(1 for _ in same)
        run, start = messages[start:end], end
        for error in filter(None, map(Message.error, run)):
            if error.code() != KafkaError._PARTITION_EOF:
                raise KafkaException(error)
        yield number or 0, run


def _moment(milliseconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(milliseconds / 1000))

"""How far the groups of worker types are behind on their input topics, whether anybody works there or not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from confluent_kafka import ConsumerGroupTopicPartitions, IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from pipelined.config import Config
from pipelined.errors import UnavailableError
from pipelined.kafka.answers import answered
from pipelined.kafka.settings import Names, admin_settings
from pipelined.stages.contract import Stream

__all__ = ["INPUTS", "Lags"]

#: What each worker type with a lag reads.
INPUTS = {
    "event-ingester": Stream.RAW,
    "event-writer": Stream.INGESTED,
    "retry-scheduler": Stream.RETRY,
    "download": Stream.PENDING,
    "upload": Stream.CACHED,
    "result-processor": Stream.RESULTS,
}
_offset: Any = OffsetSpec  # its constructors carry no types
_UNCOMMITTED = IsolationLevel.READ_UNCOMMITTED


class Lags:
    """Asks, over one connection, for the lags of these worker types. Called by one thread."""

    def __init__(self, config: Config, worker_types: Sequence[str]) -> None:
        self._names = Names(config)
        self._types = worker_types
        self._admin = AdminClient(admin_settings(config))

    def ask(self, timeout: float = 5.0) -> dict[str, int]:
        """Records between what each group has committed and the ends, transaction markers included.

        Where a group has committed nothing of a partition, all of it counts. Raises UnavailableError where
        the cluster does not answer each question within ``timeout`` seconds.
        """
        try:
            return {worker_type: self._lag(worker_type, timeout) for worker_type in self._types}
        except KafkaException as error:
            msg = f"Kafka does not tell how far behind the stages are: {error.args[0].str()}"
            raise UnavailableError(msg) from error

    def _lag(self, worker_type: str, timeout: float) -> int:
        stream = INPUTS[worker_type]
        count = self._names.section(stream).partitions
        places = [(topic, number) for topic in self._names.topics(stream) for number in range(count)]
        # One group at a time: the client takes no more.
        asked = [ConsumerGroupTopicPartitions(self._names.group(worker_type))]
        [answer] = self._admin.list_consumer_group_offsets(asked, request_timeout=timeout).values()
        committed = {
            (place.topic, place.partition): place.offset
            for place in answered(answer, timeout + 1).topic_partitions or []
            if place.offset >= 0
        }
        places += [place for place in committed if place not in places]
        untouched = [place for place in places if place not in committed]
        starts = committed | self._offsets(untouched, _offset.earliest(), timeout)
        ends = self._offsets(places, _offset.latest(), timeout)
        return sum(max(0, ends[place] - starts[place]) for place in places)

    def _offsets(
        self, places: Sequence[tuple[str, int]], where: OffsetSpec, timeout: float
    ) -> dict[tuple[str, int], int]:
        if not places:
            return {}
        asked = {TopicPartition(*place): where for place in places}
        answers = self._admin.list_offsets(asked, isolation_level=_UNCOMMITTED, request_timeout=timeout)
        return {
            (place.topic, place.partition): answered(answer, timeout + 1).offset
            for place, answer in answers.items()
        }

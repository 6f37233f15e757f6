"""How far the groups of worker types are behind on their input topics, whether anybody works there or not."""

from __future__ import annotations

from collections.abc import Sequence

from confluent_kafka import Consumer, KafkaException, TopicPartition

from pipelined.config import Config
from pipelined.errors import UnavailableError
from pipelined.kafka.settings import Names, consumer_settings
from pipelined.stages.contract import Stream

__all__ = ["INPUTS", "Lags", "behind", "onlooker"]

#: What each worker type with a lag reads.
INPUTS = {
    "event-ingester": Stream.RAW,
    "event-writer": Stream.INGESTED,
    "retry-scheduler": Stream.RETRY,
    "download": Stream.PENDING,
    "upload": Stream.CACHED,
    "result-processor": Stream.RESULTS,
}


class Lags:
    """Asks, over connections that it keeps, for the lags of these worker types. Called by one thread."""

    def __init__(self, config: Config, worker_types: Sequence[str]) -> None:
        self._config = config
        self._names = Names(config)
        self._types = worker_types
        self._consumers: dict[str, Consumer] = {}

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
        consumer = self._consumer(worker_type)
        stream = INPUTS[worker_type]
        count = self._names.section(stream).partitions
        topics = self._names.topics(stream)
        asked = [TopicPartition(topic, number) for topic in topics for number in range(count)]
        return sum(behind(consumer, asked, timeout).values())

    def _consumer(self, worker_type: str) -> Consumer:
        if worker_type not in self._consumers:
            self._consumers[worker_type] = onlooker(self._config, self._names.group(worker_type))
        return self._consumers[worker_type]


def onlooker(config: Config, group: str) -> Consumer:
    """A consumer that asks in the group's name and never joins it.

    The admin client's call for a group's offsets takes the process down with it while the group's
    coordinator moves (librdkafka 5040). And who reads only what is committed gets no answer while a
    transaction may move an offset.
    """
    return Consumer(consumer_settings(config, group, None) | {"isolation.level": "read_uncommitted"})


def behind(
    consumer: Consumer, places: Sequence[TopicPartition], timeout: float
) -> dict[tuple[str, int], int]:
    """Records between what the consumer's group has committed of each partition and its end.

    Transaction markers count. Where nothing is committed, all of it does. Raises KafkaException.
    """
    lags = {}
    for place in consumer.committed(list(places), timeout=timeout):
        low, high = consumer.get_watermark_offsets(place, timeout=timeout)
        lags[place.topic, place.partition] = max(0, high - max(place.offset, low))
    return lags

"""The positions of the sources: the last committed record of a key on the compacted checkpoints topic."""

from __future__ import annotations

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from pipelined.config import Config
from pipelined.errors import UnavailableError
from pipelined.kafka.settings import Names, consumer_settings

__all__ = ["read_checkpoint"]

_TIMEOUT = 15.0


def read_checkpoint(config: Config, key: str) -> bytes | None:
    """The value last committed under ``key``, None where there is none.

    Call it after the transactional id of the writer was taken over: only then is nothing of a
    predecessor still under way.
    """
    topic = Names(config).topic("checkpoints")
    settings = consumer_settings(config, f"{config.domain}.checkpoints", None)
    consumer = Consumer(
        settings | {"fetch.wait.max.ms": 10}
    )  # the end of a partition is told after this wait
    found: bytes | None = None
    try:
        partitions = consumer.list_topics(topic, timeout=_TIMEOUT).topics[topic].partitions
        if not partitions:
            msg = f"the topic {topic} does not exist; run `pipelinectl topics apply`"
            raise UnavailableError(msg)
        consumer.assign([TopicPartition(topic, number, 0) for number in partitions])
        open_ends = set(partitions)
        while open_ends:
            # `consume(1000, 0.2)` alone would wait its whole time for the thousandth.
            for message in [*consumer.consume(1, 0.2), *consumer.consume(1000, 0)]:
                error = message.error()
                if error is None:
                    if message.key() == key.encode():
                        found = message.value()
                elif error.code() == KafkaError._PARTITION_EOF:
                    open_ends.discard(message.partition() or 0)
                else:
                    raise KafkaException(error)
    except KafkaException as error:
        msg = f"the positions on {topic} cannot be read: {error.args[0].str()}"
        raise UnavailableError(msg) from error
    finally:
        consumer.close()
    return found

"""Events as messages of an Event Hub: each line as it is, sent by the Kafka protocol."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from confluent_kafka import Producer

from pipelined.config.secrets import resolve
from pipelined.config.tree import Config
from pipelined.errors import UnavailableError
from pipelined.local.kafka_config import SASL_USER

__all__ = ["HubWriter"]

_FLUSH_S = 60.0
_QUEUE_FULL_S = 0.1


class HubWriter:
    """Sends to the hub of a configuration that has a connection string. UnavailableError where it cannot."""

    def __init__(self, config: Config) -> None:
        hub = config.eventhub
        self._topic = hub.topic
        self._failed: Exception | None = None
        self._producer = Producer(
            {
                "bootstrap.servers": hub.bootstrap,
                "security.protocol": "SASL_SSL",
                "sasl.mechanism": "PLAIN",
                "sasl.username": SASL_USER,
                "sasl.password": resolve(hub.connection_string),
                "ssl.ca.location": hub.ca_file,
                "enable.idempotence": True,
                "linger.ms": 5,
                "message.max.bytes": config.kafka.max_message_bytes + 65536,
                "log_level": 0,
            }
        )

    def put(self, lines: Iterable[bytes]) -> None:
        """Send these, and return when all of them are in the hub."""
        for line in lines:
            while True:
                try:
                    self._producer.produce(self._topic, line, on_delivery=self._delivered)
                    break
                except BufferError:
                    self._producer.poll(_QUEUE_FULL_S)
            self._producer.poll(0)
        left = self._producer.flush(_FLUSH_S)
        if left or self._failed is not None:
            failed, self._failed = self._failed, None
            raise UnavailableError(f"the local Event Hub does not take the events: {failed or 'no answer'}")

    def _delivered(self, error: Any, _message: Any) -> None:
        if error is not None:
            self._failed = RuntimeError(str(error))

"""Which partitions this host's own workers of another type have: what stays on this host goes there.

A downloaded file lies in the cache folder of the host that fetched it, so its record is best read by an
upload worker of that host. Partitions move, and what is known here may be some seconds old: who gets a
record of another host's file has it fetched again.
"""

from __future__ import annotations

import logging
import threading
import zlib

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from pipelined.config import Config
from pipelined.kafka.settings import Names, admin_settings, host_name

__all__ = ["Neighbours"]

_logger = logging.getLogger("pipelined.kafka")
_EVERY_S = 3.0
_TIMEOUT_S = 3.0


class Neighbours:
    """Follows one group, in a thread of its own; ``close`` ends that."""

    def __init__(self, config: Config, worker_type: str, stream: str) -> None:
        names = Names(config)
        self._group = names.group(worker_type)
        self._ours = f"{config.domain}.{host_name(config)}.{worker_type}."
        self._topic = names.topic(stream)
        self._own: tuple[int, ...] = ()
        self._over = threading.Event()
        self._admin = AdminClient(admin_settings(config))
        self._thread = threading.Thread(target=self._follow, name="neighbours", daemon=True)
        self._thread.start()

    def partition(self, key: bytes | None) -> int | None:
        """A partition that a worker of this host has, the same for a key as long as these are; else None.

        None also where this host has all of them: any will do.
        """
        own = self._own
        return own[zlib.crc32(key or b"") % len(own)] if own else None

    def close(self) -> None:
        """Stop following."""
        self._over.set()
        self._thread.join()

    def _follow(self) -> None:
        while True:
            try:
                self._own = self._look()
            except KafkaException as error:
                _logger.debug("the members of %s cannot be told: %s", self._group, error)
            if self._over.wait(_EVERY_S):
                return

    def _look(self) -> tuple[int, ...]:
        (answer,) = self._admin.describe_consumer_groups([self._group], request_timeout=_TIMEOUT_S).values()
        own: set[int] = set()
        others: set[int] = set()
        for member in answer.result(_TIMEOUT_S + 5).members:
            partitions = own if (member.group_instance_id or "").startswith(self._ours) else others
            for place in member.assignment.topic_partitions:
                if place.topic == self._topic:
                    partitions.add(place.partition)
        return tuple(sorted(own)) if others else ()

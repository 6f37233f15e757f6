"""The topics, read from their first record by a consumer of no group's business.

The ledger joins no group and commits nothing; it sees what was committed, as every worker does.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from confluent_kafka import OFFSET_BEGINNING

from pipelined.config.tree import Config
from pipelined.errors import UnavailableError
from pipelined.ledger.books import Record
from pipelined.ledger.connection import Connection, Place, is_end, is_missing, receive
from pipelined.ledger.evidence import Origin

__all__ = ["NEEDED", "TopicReader", "topic_name"]

#: The sections of the topics that the ledger needs whole.
NEEDED = ("events_raw", "events_ingested", "events_dlq", "downloads_results", "downloads_dlq")
#: Those whose records carry headers that the ledger reads.
_WITH_HEADERS = frozenset({"events_dlq", "downloads_dlq"})
_PATIENCE = 15.0
_OPEN_PATIENCE = 5.0
_NEW_PATIENCE = 1.0


def topic_name(config: Config, section: str) -> str:
    """The name of the topic of a section, ``events_raw`` for example; of the retry tiers, its beginning."""
    name: str = getattr(config.topics, section).name
    return name or f"{config.domain}.{section.replace('_', '.')}"


class TopicReader:
    """Reads the topics of the ledger, and the retry tiers there are, from their beginning, as they grow.

    ``UnavailableError`` from every method when the brokers cannot be reached, a topic does not exist, or
    records of one that must be whole have been deleted already. ``with_origins``: the records of events.raw
    come with the headers that say where they are from.
    """

    def __init__(self, config: Config, *, with_origins: bool = False) -> None:
        self._config = config
        self._with_headers = _WITH_HEADERS | {"events_raw"} if with_origins else _WITH_HEADERS
        self._connection = Connection(config)
        self._sections, self._places = self._find()
        self._refuse_partial(self._connection.first(self._places))
        self._at = dict.fromkeys(self._places, 0)
        self._consumer = self._connection.consumer([(*place, OFFSET_BEGINNING) for place in self._places])

    def close(self) -> None:
        """Give the connections back."""
        self._consumer.close()

    def read(self, timeout: float) -> list[Record]:
        """The next records of any topics, waiting for the first at most ``timeout`` seconds."""
        records = []
        for message in receive(self._consumer, timeout):
            topic, partition, offset = message.topic(), message.partition(), message.offset()
            if is_end(message):
                self._at[topic, partition] = offset
            elif is_missing(message):
                raise UnavailableError(f"{topic} was deleted while the ledger read it")
            else:
                self._at[topic, partition] = offset + 1
                section = self._sections[topic]
                headers = _headers(message) if section in self._with_headers else {}
                records.append(Record(section, partition, offset, message.value() or b"", headers))
        return records

    def read_to_end(self) -> Iterator[list[Record]]:
        """Everything that is written now, in batches.

        Where its transaction is still open, it is waited for, but not beyond 5 s without any new record.
        """
        wanted = self._connection.written(self._places)
        heard = time.monotonic()
        while any(self._at[place] < end for place, end in wanted.items()):
            before = dict(self._at)
            yield self.read(0.1)
            silence = time.monotonic() - heard
            if self._at != before:
                heard = time.monotonic()
            elif silence > _OPEN_PATIENCE:
                visible = self._connection.end(self._places)
                if all(self._at[place] >= min(end, visible[place]) for place, end in wanted.items()):
                    return
                if silence > _PATIENCE:
                    raise self._silent()

    def hidden(self) -> int:
        """Records behind the first open transaction of their partition: nobody sees them until it ends."""
        visible = self._connection.end(self._places)
        written = self._connection.written(self._places)
        return sum(max(0, written[place] - visible[place]) for place in self._places)

    def value_at(self, origin: Origin) -> bytes | None:
        """The value of that one record, None where it does not exist."""
        for message in self._once([(origin.topic, origin.partition, origin.offset)], most=1):
            found: bytes = message.value() or b""
            return found if message.offset() == origin.offset else None
        return None

    def records_of(self, section: str) -> Iterator[tuple[bytes, Mapping[str, str]]]:
        """Value and headers of each record of another topic as it is now; none where there is no topic."""
        name = topic_name(self._config, section)
        partitions = self._connection.topics().get(name, [])
        for message in self._once([(name, number, OFFSET_BEGINNING) for number in partitions]):
            yield message.value() or b"", _headers(message)

    def _once(self, places: list[tuple[str, int, int]], most: int = 5000) -> Iterator[Any]:
        """The messages of these partitions from these offsets to their ends."""
        left = {(topic, partition) for topic, partition, _ in places}
        consumer = self._connection.consumer(places)
        heard = time.monotonic()
        try:
            while left and time.monotonic() - heard < _PATIENCE:
                for message in receive(consumer, 0.2, most):
                    heard = time.monotonic()
                    if is_end(message) or is_missing(message):
                        left.discard((message.topic(), message.partition()))
                    else:
                        yield message
            if left:
                raise self._silent()
        finally:
            consumer.close()

    def _silent(self) -> UnavailableError:
        return UnavailableError(
            f"Kafka at {self._connection.bootstrap} has records, but delivered none for {_PATIENCE:g} s; see "
            "whether all its brokers run"
        )

    def _find(self) -> tuple[dict[str, str], list[Place]]:
        """The section of each topic that is read, by the topic's name, and all their partitions."""
        sections = {topic_name(self._config, section): section for section in NEEDED}
        deadline = time.monotonic() + _NEW_PATIENCE
        while True:
            there = self._connection.topics()
            missing = sorted(set(sections) - set(there))
            if not missing or time.monotonic() > deadline:
                break
            time.sleep(0.1)  # brokers learn of a new topic a moment after it was made
        if missing:
            raise UnavailableError(
                f"{self._connection.bootstrap} has no topic {', '.join(missing)}; if this is the right "
                "cluster and domain, `pipelinectl topics apply` makes the topics"
            )
        tiers = topic_name(self._config, "downloads_retry") + "."
        sections |= {name: "downloads_retry" for name in there if name.startswith(tiers)}
        return sections, [(name, number) for name in sections for number in there[name]]

    def _refuse_partial(self, first: Mapping[Place, int]) -> None:
        for (topic, partition), offset in sorted(first.items()):
            if offset and self._sections[topic] in NEEDED:
                raise UnavailableError(
                    f"{topic} begins at offset {offset} in partition {partition}: its older records are "
                    "deleted already, so what came in can no longer be held against what came out. The "
                    "ledger needs every record since the first; it works within the topics' retention"
                )


def _headers(message: Any) -> dict[str, str]:
    """The headers as text; of several of one name the last."""
    return {
        name: value.decode(errors="replace") if isinstance(value, bytes) else value or ""
        for name, value in message.headers() or ()
    }

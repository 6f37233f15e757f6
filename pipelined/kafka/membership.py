"""A member of a consumer group: static, cooperative, its partitions handed over in order.

The runtime gives a :class:`Listener`; its methods run inside :meth:`Member.poll`, in the calling thread.
What one of them raises is kept and raised from ``poll``: an exception inside librdkafka's callback would
surface as something else, somewhere else.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_INVALID,
    Consumer,
    KafkaError,
    KafkaException,
    TopicPartition,
)

from pipelined.config import Config
from pipelined.errors import FencedError, UnavailableError
from pipelined.kafka.settings import Names, consumer_settings
from pipelined.stages.contract import Partition, Record

__all__ = ["Listener", "Member", "Position"]

_logger = logging.getLogger("pipelined.kafka")

#: Where a partition's owner goes on: the next offset (None: from the beginning), and the commit's metadata.
Position = tuple[int | None, str]


#: Behind the last record of a partition there may be so many transaction markers, and no record.
_MARKERS = 2
_END_TIMEOUT = 10.0


class Listener(Protocol):
    """What the runtime does when partitions come and go."""

    def assigned(self, positions: dict[Partition, Position]) -> dict[Partition, int | None]:
        """Take partitions over; returns the offset to begin at for each (None: the beginning)."""

    def revoked(self, partitions: Sequence[Partition]) -> None:
        """Finish what is in hand for these partitions and commit it; they go to another member then."""

    def lost(self, partitions: Sequence[Partition]) -> None:
        """These partitions are somebody else's already: drop everything, commit nothing."""


class Member:
    """One consumer in the group of its worker type, reading committed records of ``topics``."""

    def __init__(
        self,
        config: Config,
        worker_type: str,
        index: int,
        topics: Sequence[str],
        listener: Listener,
        beat: Callable[[], None],
    ) -> None:
        names = Names(config)
        self.group = names.group(worker_type)
        self.instance = names.instance(worker_type, index)
        self._listener = listener
        self._beat = beat
        self._topics = list(topics)
        self._committed_timeout = config.kafka.transaction_timeout_s + 5
        self._failure: BaseException | None = None
        self._assignment: dict[Partition, TopicPartition] = {}
        self._partitions: dict[tuple[str, int], Partition] = {}
        self._ends: dict[tuple[str, int], int] = {}
        self._given_up: set[tuple[str, int]] = set()
        self._paused: set[Partition] = set()
        self.joined = False
        self._consumer = Consumer(consumer_settings(config, self.group, self.instance))

    def subscribe(self) -> None:
        """Ask for partitions; they come during ``poll``."""
        self._consumer.subscribe(
            self._topics, on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    @property
    def partitions(self) -> list[Partition]:
        """The partitions held now."""
        return list(self._assignment)

    def poll(self, limit: int, timeout: float) -> list[Record]:
        """Up to ``limit`` records; waits at most ``timeout`` seconds for the first, never for more.

        Raises what a listener raised, and FencedError when another process took this member's id.
        """
        # One blocking call for the first message, then whatever is there: `consume(n, t)` alone would
        # wait its whole time for the n-th message.
        messages = self._consumer.consume(1, timeout)
        if messages and limit > 1:
            self._given_up.clear()
            more = self._consumer.consume(limit - 1, 0)
            if self._given_up:  # a rebalance came between: the first message is not ours any more
                messages = [m for m in messages if (m.topic(), m.partition()) not in self._given_up]
            messages += more
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        return [record for message in messages if (record := self._record(message)) is not None]

    def _record(self, message: Any) -> Record | None:
        error = message.error()
        place = (message.topic(), message.partition())
        if error is not None:
            if error.code() == KafkaError._PARTITION_EOF:
                self._ends[place] = message.offset()
            else:
                self._check(error)
            return None
        partition = self._partitions.get(place)
        if partition is None:
            partition = self._partitions[place] = Partition(*place)
        return Record(
            partition,
            message.offset(),
            message.key(),
            message.value() or b"",
            message.headers() or [],
            message.timestamp()[1],
        )

    def _check(self, error: KafkaError) -> None:
        # That it is fenced a consumer tells once, as _FATAL with fatal() false, and is silent from then on.
        if error.code() in {KafkaError._FATAL, KafkaError.FENCED_INSTANCE_ID, KafkaError._FENCED}:
            msg = (
                f"another process took over the member {self.instance} of group {self.group}: {error.str()}; "
                "this one ends. Two daemons with one kafka.host? Give each host its own."
            )
            raise FencedError(msg)
        if error.code() in {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC}:
            msg = (
                f"a topic of {', '.join(self._topics)} is gone: {error.str()}; run `pipelinectl topics apply`"
            )
            raise UnavailableError(msg)
        _logger.warning("consumer of %s: %s", self.group, error.str(), extra={"code": error.name()})

    def group_metadata(self) -> object:
        """What a transaction needs to prove this member's generation."""
        return self._consumer.consumer_group_metadata()

    def pause(self, partition: Partition) -> None:
        """Take no more records of a partition; polling goes on."""
        if partition in self._assignment and partition not in self._paused:
            self._consumer.pause([self._assignment[partition]])
            self._paused.add(partition)

    def resume(self, partition: Partition) -> None:
        """Take its records again."""
        if partition in self._paused:
            self._consumer.resume([self._assignment[partition]])
            self._paused.discard(partition)

    def commit(self, offsets: Iterable[TopicPartition]) -> None:
        """Mirror offsets that are durable elsewhere to the broker, for lag tools; never waits."""
        batch = list(offsets)
        if batch:
            self._consumer.commit(offsets=batch, asynchronous=True)

    def lag(self, committed: dict[Partition, int]) -> int:
        """Records behind the given next offsets, by the ends the consumer last heard of.

        Transaction markers count, as in every lag tool, except at the end: where the consumer has seen
        the end of a partition and holds nothing of it, nothing is behind.
        """
        total = 0
        for partition, place in self._assignment.items():
            low, high = self._consumer.get_watermark_offsets(place, cached=True)
            behind = high - max(committed.get(partition, 0), low)
            if behind > 0 and not (behind <= _MARKERS and self._ends.get(partition) == high):
                total += behind
        return total

    def end(self, partition: Partition) -> int:
        """The offset behind the last committed record of a partition, asked of the broker now."""
        try:
            return int(
                self._consumer.get_watermark_offsets(TopicPartition(*partition), timeout=_END_TIMEOUT)[1]
            )
        except KafkaException as error:
            msg = f"the end of {partition.topic}/{partition.number} cannot be read: {error.args[0].str()}"
            raise UnavailableError(msg) from error

    def close(self) -> None:
        """Leave. A static member's partitions wait for its return until the session times out."""
        self._consumer.close()
        if self._failure is not None:
            _logger.error("while leaving the group", exc_info=self._failure)

    def _keep(self, function: Callable[[], None]) -> None:
        try:
            function()
        except BaseException as error:  # noqa: BLE001 - raised again by poll(), outside the callback
            self._failure = error

    def _on_assign(self, _: Consumer, places: list[TopicPartition]) -> None:
        self._keep(lambda: self._assign(places))

    def _assign(self, places: list[TopicPartition]) -> None:
        self.joined = True
        if not places:
            return
        positions = self._positions(places)
        starts = self._listener.assigned(positions)
        assigned = []
        for partition, start in starts.items():
            place = TopicPartition(*partition, OFFSET_BEGINNING if start is None else start)
            self._assignment[partition] = TopicPartition(*partition)
            assigned.append(place)
        self._consumer.incremental_assign(assigned)
        _logger.info(
            "partitions assigned: %s",
            ", ".join(f"{p.topic}/{p.number}@{starts[p]}" for p in starts),
            extra={"group": self.group},
        )

    def _positions(self, places: list[TopicPartition]) -> dict[Partition, Position]:
        """The committed offsets. Waits while a transaction on them is open, the zombie's included."""
        deadline = time.monotonic() + self._committed_timeout
        asked = [TopicPartition(place.topic, place.partition) for place in places]
        while True:
            self._beat()
            try:
                committed = self._consumer.committed(asked, timeout=2.0)
                break
            except KafkaException as error:
                if time.monotonic() > deadline:
                    msg = (
                        f"the offsets of {self.group} could not be read: {error.args[0].str()}; starting anew"
                    )
                    raise UnavailableError(msg) from error
        positions: dict[Partition, Position] = {}
        for place in committed:
            if place.error is not None:
                msg = f"the offsets of {self.group} could not be read: {place.error.str()}; starting anew"
                raise UnavailableError(msg)
            offset = None if place.offset in {OFFSET_INVALID, OFFSET_BEGINNING} else place.offset
            positions[Partition(place.topic, place.partition)] = (offset, place.metadata or "")
        return positions

    def _on_revoke(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        self._keep(lambda: self._listener.revoked(self._drop(places)))
        consumer.incremental_unassign(places)

    def _on_lost(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        self._keep(lambda: self._listener.lost(self._drop(places)))
        consumer.incremental_unassign(places)

    def _drop(self, places: list[TopicPartition]) -> list[Partition]:
        partitions = [Partition(place.topic, place.partition) for place in places]
        self._given_up.update(partitions)
        for partition in partitions:
            self._assignment.pop(partition, None)
            self._paused.discard(partition)
        if partitions:
            _logger.info(
                "partitions given up: %s",
                ", ".join(f"{p.topic}/{p.number}" for p in partitions),
                extra={"group": self.group},
            )
        return partitions

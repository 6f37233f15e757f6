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

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from pipelined.config import Config
from pipelined.crashpoints import Point, crashpoint
from pipelined.errors import FencedError, UnavailableError
from pipelined.kafka.leaving import leave
from pipelined.kafka.notes import write_note
from pipelined.kafka.owners import Owners
from pipelined.kafka.positions import Position, TopicIds
from pipelined.kafka.settings import Names, consumer_settings
from pipelined.stages.contract import Partition, Record

__all__ = ["Listener", "Member", "check_fenced"]

_logger = logging.getLogger("pipelined.kafka")

#: Behind the last record of a partition there may be so many transaction markers, and no record.
_MARKERS = 2
#: Seconds for one question about a topic, and between two looks whether it is still the same.
_ASK_TIMEOUT = 5.0
_LOOK_SECONDS = 20.0
#: After so many session timeouts without an answer of the group the client is taken for stuck.
_PATIENCE_SESSIONS = 3


def check_fenced(error: KafkaError, instance: str, group: str) -> None:
    """Raise FencedError where a consumer's error says that its static membership is another's."""
    # A consumer tells it once, as _FATAL with fatal() false, and is silent from then on.
    if error.code() in {KafkaError._FATAL, KafkaError.FENCED_INSTANCE_ID, KafkaError._FENCED}:
        msg = (
            f"another process took over the member {instance} of group {group}: {error.str()}; "
            "this one ends. Two daemons with one kafka.host? Give each host its own."
        )
        raise FencedError(msg)


class Listener(Protocol):
    """What the runtime does when partitions come and go."""

    def assigned(self, positions: dict[Partition, Position]) -> dict[Partition, int]:
        """Take partitions over; returns the offset to begin at for each."""

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
        #: Since when the group owes an answer: from asking for partitions, or losing them, to an assignment.
        self._waits_since: float | None = None
        self._patience = _PATIENCE_SESSIONS * config.kafka.session_timeout_s
        self._topic_ids: dict[str, str] = {}
        self._next_look = time.monotonic() + _LOOK_SECONDS
        self._ids = TopicIds(config)
        self._owners = Owners(config, self.group, self.instance, topics)
        self._config = config
        self._consumer = Consumer(consumer_settings(config, self.group, self.instance))

    def subscribe(self) -> None:
        """Ask for partitions; they come during ``poll``."""
        self._waits_since = time.monotonic()
        self._consumer.subscribe(
            self._topics, on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    @property
    def partitions(self) -> list[Partition]:
        """The partitions held now."""
        return list(self._assignment)

    def poll(self, limit: int, timeout: float) -> list[Record]:
        """Up to ``limit`` records; waits at most ``timeout`` seconds for the first, never for more.

        Raises what a listener raised, FencedError when another process took this member's id, and
        UnavailableError when a topic is gone or not the one it was, or the group does not answer any more.
        """
        self._look()
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
        check_fenced(error, self.instance, self.group)
        if error.code() in {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC}:
            msg = (
                f"a topic of {', '.join(self._topics)} is gone: {error.str()}; run `pipelinectl topics apply`"
            )
            raise UnavailableError(msg)
        if error.code() == KafkaError._AUTO_OFFSET_RESET:
            # Going on elsewhere would be a silent gap: whoever takes the partition over judges where.
            msg = f"the next record of {self.group} is not there any more: {error.str()}; starting anew"
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

    def place(
        self, partition: Partition, offset: int, *, beyond: bytes = b"", dead: int = 0
    ) -> TopicPartition:
        """What to commit for a partition: the next offset, with a note (``kafka.notes``) about it."""
        topic_id = self._topic_ids.get(partition.topic, "")
        note = write_note(*partition, offset, topic_id=topic_id, beyond=beyond, dead=dead)
        return TopicPartition(*partition, offset, note)

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

    def close(self) -> None:
        """Leave. A static member's partitions wait for its return until the session times out."""
        crashpoint(Point.DRAINED)
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
        self._waits_since = None
        self._owners.rebalanced()
        if not places:
            return
        positions = self._positions(places)
        crashpoint(Point.OFFSETS_READ)
        starts = self._listener.assigned(positions)
        crashpoint(Point.ASSIGNED)
        assigned = []
        for partition, start in starts.items():
            self._assignment[partition] = TopicPartition(*partition)
            assigned.append(TopicPartition(*partition, start))
        self._consumer.incremental_assign(assigned)
        _logger.info(
            "partitions assigned: %s",
            ", ".join(f"{p.topic}/{p.number}@{starts[p]}" for p in starts),
            extra={"group": self.group},
        )

    def _positions(self, places: list[TopicPartition]) -> dict[Partition, Position]:
        """Where the group stands. Waits while a transaction on its offsets is open, a zombie's included."""
        deadline = time.monotonic() + self._committed_timeout
        partitions = [Partition(place.topic, place.partition) for place in places]
        topics = {partition.topic for partition in partitions}
        while True:
            self._beat()
            try:
                committed = self._committed(partitions)
                if unknown := topics - self._topic_ids.keys():
                    self._topic_ids |= self._ids.wait([*unknown], _ASK_TIMEOUT)
                bounds = {p: self._bounds(p) for p in partitions}
                break
            except KafkaException as error:
                if time.monotonic() > deadline:
                    raise self._unread(error.args[0]) from error
                time.sleep(0.02)  # some errors come at once, such as that of a partition without a leader
        positions = {}
        for place in committed:
            partition = Partition(place.topic, place.partition)
            positions[partition] = Position.of(place, self._topic_ids[place.topic], *bounds[partition])
        return positions

    def _committed(self, partitions: Sequence[Partition]) -> list[TopicPartition]:
        """What the group has committed. Raises KafkaException, also for a single partition."""
        committed = self._consumer.committed([TopicPartition(*p) for p in partitions], timeout=2.0)
        for place in committed:
            if place.error is not None:
                raise KafkaException(place.error)
        return committed

    def _bounds(self, partition: Partition) -> tuple[int, int]:
        """The first offset and the end of a partition. Raises KafkaException, also where nobody knows."""
        self._beat()
        low, high = self._consumer.get_watermark_offsets(TopicPartition(*partition), timeout=_ASK_TIMEOUT)
        if low < 0 or high < 0:  # no leader at the moment, which is no error to the client
            raise KafkaException(KafkaError(KafkaError.LEADER_NOT_AVAILABLE))
        return low, high

    def _unread(self, error: KafkaError) -> UnavailableError:
        return UnavailableError(
            f"the offsets of {self.group} could not be read: {error.str()}; starting anew"
        )

    def _look(self) -> None:
        """See whether the group answers, and now and then whether its topics are the same; never waits."""
        now = time.monotonic()
        if self._waits_since is not None and now - self._waits_since > self._patience:
            # A client that lost its session while brokers went away sometimes never asks again.
            msg = f"the group {self.group} has given no answer for {self._patience:g} s; starting anew"
            raise UnavailableError(msg)
        if now >= self._next_look and self._topic_ids:
            self._next_look = now + _LOOK_SECONDS
            self._ids.ask([*self._topic_ids], _ASK_TIMEOUT)
        for topic, topic_id in self._ids.answers().items():
            if self._topic_ids.get(topic, topic_id) != topic_id:
                msg = f"the topic {topic} was deleted and made anew; starting anew"
                raise UnavailableError(msg)
        if forsaken := self._owners.forsaken():
            self._share_anew(forsaken)

    def _share_anew(self, forsaken: Sequence[tuple[str, int]]) -> None:
        """Leave, so that the group gives out its partitions again."""
        named = ", ".join(f"{topic}/{number}" for topic, number in forsaken)
        leave(self._config, self.group, [self.instance])
        msg = (
            f"nobody in the group {self.group} has {named}: a member was killed while they were to change "
            "hands; left the group, so that it shares them out; starting anew"
        )
        raise UnavailableError(msg)

    def _on_revoke(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        self._keep(lambda: self._listener.revoked(self._drop(places)))
        crashpoint(Point.REVOKED)
        consumer.incremental_unassign(places)

    def _on_lost(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        self._waits_since = time.monotonic()
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

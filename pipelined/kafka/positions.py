"""Where a group stands in its partitions, held against what the topic is and holds now.

A committed offset alone can mislead: the topic may have been deleted and made anew, its records removed by
retention before anybody read them, the offset moved by hand. Each of these is detected here, when a
partition is assigned, and said; none of them is passed over in silence.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

from confluent_kafka import (
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec

from pipelined.config import Config
from pipelined.errors import UnavailableError
from pipelined.kafka.notes import Note, NoteError, read_note
from pipelined.kafka.progress import Progress
from pipelined.kafka.settings import admin_settings
from pipelined.stages.contract import Partition

__all__ = ["Position", "TopicFacts", "begin"]

_logger = logging.getLogger("pipelined.kafka")

_EARLIEST = OffsetSpec.earliest()  # type: ignore[no-untyped-call] # the client does not say its types
_LATEST = OffsetSpec.latest()  # type: ignore[no-untyped-call] # the same
_GONE = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC})


class Position(NamedTuple):
    """Of one partition: the next offset that its group committed, and what the topic holds.

    ``offset`` is None where nothing was committed. ``note`` is None where nothing of ours was committed
    with the offset; ``doubt`` says why. ``low`` and ``high`` are the first offset and the end.
    """

    offset: int | None
    note: Note | None
    doubt: str
    topic_id: str
    low: int
    high: int

    @classmethod
    def of(cls, place: TopicPartition, topic_id: str, low: int, high: int) -> Position:
        """The position that a broker has for a partition; no offset where ``place`` has none."""
        if place.offset < 0:
            return cls(None, None, "", topic_id, low, high)
        try:
            note = read_note(place.topic, place.partition, place.offset, place.metadata or "")
        except NoteError as error:
            return cls(place.offset, None, str(error), topic_id, low, high)
        return cls(place.offset, note, "", topic_id, low, high)

    @property
    def is_of_another_topic(self) -> bool:
        """Whether the offset belongs to a former topic of the same name."""
        told = self.note.topic_id if self.note else ""
        return bool(told and self.topic_id) and told != self.topic_id


class TopicFacts:
    """Asks the brokers about topics: their ids, their first offsets and their ends."""

    def __init__(self, config: Config) -> None:
        self._admin = AdminClient(admin_settings(config))
        self._asked: dict[str, Future[Any]] = {}

    def ids(self, topics: Sequence[str], timeout: float) -> dict[str, str]:
        """The id of each topic. Raises UnavailableError where one is gone, KafkaException otherwise."""
        asked = self._admin.describe_topics(TopicCollection([*topics]), request_timeout=timeout)
        return {topic: _id(topic, future) for topic, future in asked.items()}

    def ask_ids(self, topics: Sequence[str], timeout: float) -> None:
        """Ask for the ids without waiting; :meth:`answered_ids` has them later."""
        self._asked = self._admin.describe_topics(TopicCollection([*topics]), request_timeout=timeout)

    def answered_ids(self) -> dict[str, str]:
        """What has been answered since :meth:`ask_ids`, and only once.

        Raises UnavailableError where a topic is gone; another failure to answer is no answer.
        """
        if not self._asked:
            return {}
        done = {topic: future for topic, future in self._asked.items() if future.done()}
        answers = {}
        for topic, future in done.items():
            del self._asked[topic]
            with contextlib.suppress(KafkaException):
                answers[topic] = _id(topic, future)
        return answers

    def bounds(self, partitions: Sequence[Partition], timeout: float) -> dict[Partition, tuple[int, int]]:
        """The first offset and the end of each partition. Raises KafkaException."""
        places = [TopicPartition(*partition) for partition in partitions]
        asked = [
            self._admin.list_offsets(
                dict.fromkeys(places, spec),
                request_timeout=timeout,
                isolation_level=IsolationLevel.READ_UNCOMMITTED,
            )
            for spec in (_EARLIEST, _LATEST)
        ]
        lows, highs = (
            {Partition(p.topic, p.partition): future.result().offset for p, future in answers.items()}
            for answers in asked
        )
        return {partition: (lows[partition], highs[partition]) for partition in partitions}


def _id(topic: str, future: Future[Any]) -> str:
    try:
        return str(future.result().topic_id)
    except KafkaException as error:
        if error.args[0].code() in _GONE:
            msg = f"the topic {topic} is gone; run `pipelinectl topics apply`"
            raise UnavailableError(msg) from error
        raise


def begin(partition: Partition, position: Position, group: str, missed: Callable[[int], None]) -> Progress:
    """How far a partition counts as done by its new owner, who begins at the progress' offset.

    ``missed`` is told how many offsets were removed from the topic before the group had read them. Raises
    UnavailableError where the offset lies behind the end of the topic.
    """
    name = f"{partition.topic}/{partition.number}"
    if position.offset is None:
        return Progress.up_to(position.low)
    if position.is_of_another_topic:
        _logger.error(
            "the topic of %s was deleted and made anew since %s last committed: the offset %d means nothing "
            "in it, and it is read from its beginning (%d)",
            name,
            group,
            position.offset,
            position.low,
            extra={"code": "topic_made_anew"},
        )
        return Progress.up_to(position.low)
    if position.offset > position.high:
        msg = (
            f"{group} has committed {name} up to offset {position.offset}, but it ends at {position.high}: "
            "the brokers have lost records, or the offset was set by hand. Find out which; then set the "
            f"offset with `kafka-consumer-groups --group {group} --topic {partition.topic}:"
            f"{partition.number} --reset-offsets --to-latest --execute` while no worker of it runs"
        )
        raise UnavailableError(msg)
    progress = position.note.progress if position.note else Progress.up_to(position.offset)
    if position.note is None:
        _logger.warning(
            "the commit of %s for %s has no note of ours (%s); going on at its offset, %d: what lies before "
            "counts as done, and if it was moved back, what follows is done again",
            group,
            name,
            position.doubt,
            position.offset,
            extra={"code": "foreign_commit"},
        )
    left, gone = progress.since(position.low)
    if gone:
        missed(gone)
        _logger.critical(
            "%d offsets of %s, from %d on, were removed by retention before %s had read them: what they held "
            "is lost to it. Keep the topic longer (topics.*.retention_hours), and see why the group lagged",
            gone,
            name,
            progress.offset,
            group,
            extra={"code": "records_expired"},
        )
    return left

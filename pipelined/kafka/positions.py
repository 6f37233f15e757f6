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

from confluent_kafka import KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient

from pipelined.config import Config
from pipelined.errors import UnavailableError
from pipelined.kafka.answers import answered
from pipelined.kafka.notes import Note, NoteError, read_note
from pipelined.kafka.progress import Progress
from pipelined.kafka.settings import admin_settings
from pipelined.stages.contract import Partition

__all__ = ["Position", "TopicIds", "begin"]

_logger = logging.getLogger("pipelined.kafka")

#: A client answers within its own time limit, or never.
_ANSWER_S = 20.0
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


class TopicIds:
    """Asks the brokers for the ids of topics.

    With a new client each time, which goes when the answers are there: one that lives on while leaders
    change may abort the whole process (librdkafka 4605, 3663).
    """

    def __init__(self, config: Config) -> None:
        self._settings = admin_settings(config)
        self._admin: AdminClient | None = None
        self._asked: dict[str, Future[Any]] = {}

    def ask(self, topics: Sequence[str], timeout: float) -> None:
        """Ask without waiting; :meth:`answers` has them later."""
        self._admin = AdminClient(self._settings)
        self._asked = self._admin.describe_topics(TopicCollection([*topics]), request_timeout=timeout)

    def wait(self, topics: Sequence[str], timeout: float) -> dict[str, str]:
        """The id of each topic. Raises UnavailableError where one is gone, KafkaException otherwise."""
        self.ask(topics, timeout)
        try:
            return {topic: _id(topic, future) for topic, future in self._asked.items()}
        finally:
            self._asked, self._admin = {}, None

    def answers(self) -> dict[str, str]:
        """The ids that were asked for, once all have been answered, and only once; empty until then.

        Raises UnavailableError where a topic is gone; another failure to answer is no answer.
        """
        if not self._asked or not all(future.done() for future in self._asked.values()):
            return {}
        asked, self._asked, self._admin = self._asked, {}, None
        answers = {}
        for topic, future in asked.items():
            with contextlib.suppress(KafkaException):
                answers[topic] = _id(topic, future)
        return answers


def _id(topic: str, future: Future[Any]) -> str:
    try:
        return str(answered(future, _ANSWER_S).topic_id)
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

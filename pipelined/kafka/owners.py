"""Whether every partition of a group has an owner: Kafka sees to it, but for one case.

A partition moves in two steps: its owner gives it up and joins again, and only then it is given to another.
A static member that is killed between the two and comes back at once is handed what it had left, and Kafka
makes no second step: the partition would rest until the group's next rebalance, whenever that is. So each
member looks, when a rebalance must be over; and once more, because a partition that was just added to the
topic has no owner either, and gets one by itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from confluent_kafka import ConsumerGroupState, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from pipelined.config import Config
from pipelined.kafka.answers import answered
from pipelined.kafka.settings import GROWTH_SEEN_MS, admin_settings

__all__ = ["Owners"]

_TIMEOUT = 5.0
#: A client answers within its own time limit, or never.
_ANSWER_S = 20.0
#: Beyond the time that a rebalance may take.
_MARGIN_S = 2.0
#: Among the questions, that about the group; the others are named by their topic.
_GROUP = ""


class Owners:
    """Looks after each rebalance, without waiting, for partitions that nobody has.

    With a new client each time, as :class:`pipelined.kafka.positions.TopicIds` does.
    """

    def __init__(
        self,
        config: Config,
        group: str,
        instance: str,
        topics: Sequence[str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = admin_settings(config)
        self._group = group
        self._instance = instance
        self._topics = list(topics)
        self._clock = clock
        # Members give up within the budget; one that could not is put out when its session ends.
        self._waits = (config.kafka.revoke_budget_s + _MARGIN_S, config.kafka.session_timeout_s + _MARGIN_S)
        self._due: list[float] = []
        self._suspects: set[tuple[str, int]] = set()
        self._admin: AdminClient | None = None
        self._asked: dict[str, Future[Any]] = {}

    def rebalanced(self) -> None:
        """The group has given out its partitions: look some time after that, and what was seen is old."""
        now = self._clock()
        self._due = [now + wait for wait in self._waits]
        self._suspects = set()
        self._asked, self._admin = {}, None

    def forsaken(self) -> list[tuple[str, int]]:
        """Partitions that nobody has, where it is for this member to do something about it; never waits.

        That is the first of the members by name, so that one of them does.
        """
        now = self._clock()
        if self._due and now >= self._due[0]:
            del self._due[0]
            self._ask()
        if not self._asked or not all(future.done() for future in self._asked.values()):
            return []
        asked, self._asked, self._admin = self._asked, {}, None
        try:
            group = answered(asked.pop(_GROUP), _ANSWER_S)
            described = [answered(future, _ANSWER_S) for future in asked.values()]
        except KafkaException:
            self._due.append(now + self._waits[0])  # unanswered is unseen
            return []
        if group.state is not ConsumerGroupState.STABLE:
            return []  # whoever gets its share then looks again
        if self._instance != min((m.group_instance_id or "" for m in group.members), default=""):
            return []
        owned = {(p.topic, p.partition) for m in group.members for p in m.assignment.topic_partitions}
        every = {(topic.name, p.id) for topic in described for p in topic.partitions}
        found = every - owned
        if found and not self._suspects:
            self._suspects = found
            self._due = [now + GROWTH_SEEN_MS / 1000 + _MARGIN_S]
            return []
        return sorted(found & self._suspects)

    def _ask(self) -> None:
        self._admin = AdminClient(self._settings)
        self._asked = {
            **self._admin.describe_topics(TopicCollection(self._topics), request_timeout=_TIMEOUT),
            _GROUP: self._admin.describe_consumer_groups([self._group], request_timeout=_TIMEOUT)[
                self._group
            ],
        }

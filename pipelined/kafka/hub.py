"""A connection to the Event Hub, a cluster that is not ours: a consumer that is no member of a group."""

from __future__ import annotations

import contextlib
import enum
import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple, TypeVar

from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient

from pipelined.config import Config
from pipelined.errors import AuthError, DependencyError
from pipelined.kafka.answers import answered
from pipelined.kafka.hub_failures import failure
from pipelined.kafka.settings import Settings, hub_consumer_settings, hub_settings
from pipelined.messages.codec import parse_time

__all__ = ["Bounds", "HubConnection", "Told"]

_logger = logging.getLogger("pipelined.sources")

T = TypeVar("T")

#: Seconds for one try of a request, and in which it must have succeeded.
_TRY_S = 1.0
_REQUEST_S = 10.0
_STEP_S = 0.05
#: How often the group is told how far it is; an Event Hub takes four such calls a second.
_TELL_S = 1.0
#: The id of a topic where the service knows none.
_NO_ID = "A" * 22
#: Seconds between two warnings of the same kind.
_QUIET_S = 60.0


class Bounds(NamedTuple):
    """The first offset of a partition, and its end."""

    low: int
    high: int


class Told(enum.Enum):
    """What a message without a record says: a partition ends, its offset is not there, it passes."""

    END = enum.auto()
    REFUSED = enum.auto()
    PASSING = enum.auto()


class HubConnection:
    """Made anew after each failure. Whatever is asked raises the errors of ``hub_failures.failure``.

    ``login`` are the client settings to log in with; ``refused`` is called when they are not taken.
    """

    def __init__(self, config: Config, login: Settings, refused: Callable[[], None]) -> None:
        self._config = config
        self._refused = refused
        self._topic = config.eventhub.topic
        #: What the client last said is wrong, until the service answers again.
        self._trouble: KafkaError | None = None
        self._held: list[Message] = []
        #: Where the group is to be told that it is, where it was told so; calls without an answer so far.
        self._tell: dict[int, int] = {}
        self._told: dict[int, int] = {}
        self._telling = 0
        self._next_tell = 0.0
        self._tell_failed = False
        self._throttle_said = 0.0
        #: Until when it said that it answers nothing (on the monotonic clock).
        self.throttled_until = 0.0
        #: Requests' seconds, and throttled answers, until they are taken.
        self.queries: list[float] = []
        self.throttled = 0
        self._login = login
        callbacks = {
            "error_cb": self._on_error,
            "throttle_cb": self._on_throttle,
            "on_commit": self._on_commit,
        }
        try:
            self._consumer = Consumer(hub_consumer_settings(config, login) | callbacks)
        except KafkaException as error:
            raise failure(error.args[0], config) from error

    @property
    def in_trouble(self) -> bool:
        """Whether the client said that something is wrong, and nothing has come since."""
        return self._trouble is not None

    def partitions(self) -> list[int]:
        """The numbers of the hub's partitions."""
        found = self._ask(lambda: self._consumer.list_topics(self._topic, timeout=_TRY_S))
        topic = found.topics[self._topic]
        if topic.error is not None:
            raise failure(topic.error, self._config)
        return sorted(topic.partitions)

    def bounds(self, numbers: Collection[int]) -> dict[int, Bounds]:
        """The first offset and the end of each of these partitions, now."""
        low, high = self._offsets(numbers, OFFSET_BEGINNING), self.ends(numbers)
        return {number: Bounds(low[number], high[number]) for number in numbers}

    def ends(self, numbers: Collection[int]) -> dict[int, int]:
        """The end of each of these partitions, now."""
        return self._offsets(numbers, OFFSET_END)

    def starts(self, to: str, bounds: Mapping[int, Bounds]) -> dict[int, int]:
        """Where partitions begin for ``beginning``, ``now`` (their end), or a time (ISO-8601).

        For a time it is the first offset at or after it, the end where there is none.
        """
        if to == "beginning":
            return {number: bound.low for number, bound in bounds.items()}
        ends = {number: bound.high for number, bound in bounds.items()}
        if to == "now":
            return ends
        found = self._offsets(bounds, round(parse_time(to).timestamp() * 1000))
        return {number: ends[number] if offset < 0 else offset for number, offset in found.items()}

    def topic_id(self) -> str:
        """What tells the hub from another one of its name; empty where the service has no such thing."""
        admin = AdminClient(hub_settings(self._config, self._login))
        asked = admin.describe_topics(TopicCollection([self._topic]), request_timeout=_REQUEST_S)
        with contextlib.suppress(KafkaException):  # no right to ask, or nothing of the kind there
            found = str(answered(asked[self._topic], 2 * _REQUEST_S).topic_id)
            return "" if found == _NO_ID else found
        return ""

    def assign(self, starts: Mapping[int, int]) -> None:
        """Read these partitions from these offsets on, and nothing else."""
        self._held = []
        self._consumer.assign([TopicPartition(self._topic, *start) for start in starts.items()])

    def assign_more(self, starts: Mapping[int, int]) -> None:
        """Read these partitions besides."""
        self._consumer.incremental_assign([TopicPartition(self._topic, *start) for start in starts.items()])

    def consume(self, limit: int, timeout: float) -> list[Message]:
        """Up to ``limit`` messages; waits so long for the last of them. Those with an error: see ``told``."""
        if self._tell and time.monotonic() >= self._next_tell:
            self._tell_now()
        held, self._held = self._held, []
        messages = held + self._consumer.consume(limit, 0 if held else timeout)
        if messages:
            self._trouble = None
        return messages

    def told(self, message: Any) -> Told:
        """What a message with an error says; raises what an operator has to know of."""
        error = message.error()
        if error.code() == KafkaError._PARTITION_EOF:
            return Told.END
        if error.code() == KafkaError._AUTO_OFFSET_RESET:
            return Told.REFUSED
        found = failure(error, self._config)
        if not isinstance(found, DependencyError):
            raise found
        _logger.warning("the Event Hub %s: %s", self._topic, error.str(), extra={"code": error.name()})
        return Told.PASSING

    def high(self, number: int) -> int:
        """The end of a partition by the service's last answer; negative where it has not said."""
        return self._consumer.get_watermark_offsets(TopicPartition(self._topic, number), cached=True)[1]

    def tell(self, offsets: Mapping[int, int]) -> None:
        """Have the group told soon how far it is, for its lag tools; never waits, and no failure matters."""
        self._tell = dict(offsets)

    def close(self, patience: float = 0) -> None:
        """Give it back; what the group is to be told may take so many seconds."""
        deadline = time.monotonic() + patience
        if patience:
            self._tell_now()
        while self._telling > 0 and time.monotonic() < deadline:
            self._consumer.consume(1, _STEP_S)
        # An answer that is owed is waited for in there, for a minute where the connection is silent.
        last = [self._consumer]
        del self._consumer
        threading.Thread(target=last.clear, name="hub-close", daemon=True).start()

    def _tell_now(self) -> None:
        self._next_tell = time.monotonic() + _TELL_S
        changed = {
            number: offset for number, offset in self._tell.items() if self._told.get(number) != offset
        }
        self._tell = {}
        if changed:
            self._told |= changed
            self._telling += 1
            places = [TopicPartition(self._topic, *offset) for offset in changed.items()]
            try:
                self._consumer.commit(offsets=places, asynchronous=True)
            except KafkaException as error:
                self._on_commit(error.args[0], [])

    def _offsets(self, numbers: Collection[int], moment: int) -> dict[int, int]:
        asked = [TopicPartition(self._topic, number, moment) for number in numbers]
        if not asked:
            return {}
        found = self._ask(lambda: self._consumer.offsets_for_times(asked, timeout=_TRY_S))
        for place in found:
            if place.error is not None:
                raise failure(place.error, self._config)
        return {place.partition: place.offset for place in found}

    def _ask(self, request: Callable[[], T]) -> T:
        """What a request comes to; tried until there is an answer, or a reason why there is none."""
        began = time.monotonic()
        while True:
            tried = time.monotonic()
            try:
                answer = request()
            except KafkaException as error:
                reason: Any = error.args[0]
                # What is wrong is told by the callbacks; a message that comes along is not lost.
                self._held += self._consumer.consume(1, 0)
                told = failure(self._trouble or reason, self._config)
                final = not isinstance(told, DependencyError) or not _passing(reason)
                if final or time.monotonic() > max(began, self.throttled_until) + _REQUEST_S:
                    if isinstance(told, AuthError):
                        self._refused()
                    raise told from error
            else:
                self.queries.append(time.monotonic() - tried)
                self._trouble = None
                return answer

    def _on_error(self, error: KafkaError) -> None:
        # That all are down says nothing of why.
        if self._trouble is None or error.code() != KafkaError._ALL_BROKERS_DOWN:
            self._trouble = error

    def _on_throttle(self, event: Any) -> None:
        if event.throttle_time <= 0:
            return
        self.throttled += 1
        self.throttled_until = time.monotonic() + event.throttle_time
        if time.monotonic() - self._throttle_said > _QUIET_S:
            self._throttle_said = time.monotonic()
            _logger.warning(
                "the Event Hub %s throttles: it answered %.1f s late; it has fewer throughput units than "
                "it takes",
                self._topic,
                event.throttle_time,
                extra={"code": "hub_throttled"},
            )

    def _on_commit(self, error: KafkaError | None, _places: list[TopicPartition]) -> None:
        self._telling -= 1
        if error is None:
            self._tell_failed = False
        elif not self._tell_failed:
            self._tell_failed = True
            _logger.warning(
                "the group %s cannot be told how far it is: %s; its lag tools are behind, and nothing else",
                self._config.eventhub.group,
                error.str(),
                extra={"code": "hub_commit_failed"},
            )


def _passing(error: KafkaError) -> bool:
    """Whether a request that failed for this reason is worth another try."""
    return error.retriable() or error.code() in {
        KafkaError._TRANSPORT,
        KafkaError._TIMED_OUT,
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._RESOLVE,
        KafkaError._UNKNOWN_PARTITION,
        KafkaError._WAIT_CACHE,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_LEADER_FOR_PARTITION,
    }

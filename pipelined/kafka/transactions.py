"""Transactions: outputs and the input offsets they come from, all or nothing.

librdkafka sorts the errors of transactions into three kinds, and this module is where they are told
apart: *retriable* calls are made again here; an *abortable* error ends in :class:`Aborted`, after which
the same batch may be tried again; a *fatal* one in :class:`pipelined.errors.FencedError`, after which
this process has to go, because another one has taken its identity over.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

from confluent_kafka import KafkaError, KafkaException, Producer, TopicPartition

from pipelined.config import Config
from pipelined.crashpoints import Point, crashpoint
from pipelined.errors import FencedError, UnavailableError
from pipelined.kafka.settings import Names, patience_with_commits_s, producer_settings
from pipelined.stages.contract import Output

__all__ = ["Aborted", "Transactor"]

_logger = logging.getLogger("pipelined.kafka")

_FENCED = frozenset(
    {
        KafkaError._FENCED,
        KafkaError.PRODUCER_FENCED,
        KafkaError.INVALID_PRODUCER_EPOCH,
    }
)
_REFUSED = frozenset(
    {
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    }
)
_ANY_PARTITION = -1
#: The first wait for a transactional id, and up to which wait a new client is tried each time, in seconds.
_FIRST_WAIT = 0.06
_LONGEST_IMPATIENCE = 0.5
#: How long offsets wait for a coordinator, or outputs for any to arrive, until a new client asks anew.
_FIRST_PATIENCE = 2.0
#: How long the end of a transaction may take of which everything has arrived.
_COMMIT_PATIENCE = 4.0
#: Some of the client's calls outlast their own time limit; by so much is no reason to give up.
_MARGIN = 1.0
_POLL_S = 0.5


class Aborted(Exception):  # noqa: N818 - an outcome, not an error: nothing was lost and nothing happened
    """The transaction did not happen; the batch may be tried again."""


class Transactor:
    """One transactional producer. ``transactional_id`` names the place, not the process.

    ``beat`` is called while it waits for the brokers, so that waiting does not look like hanging.
    """

    def __init__(self, config: Config, transactional_id: str, beat: Callable[[], None]) -> None:
        self.transactional_id = transactional_id
        self._beat = beat
        self._names = Names(config)
        self._topics: dict[tuple[str, int], str] = {}
        self._most_patience = patience_with_commits_s(config)
        self._patience = _FIRST_PATIENCE
        self._deadline = math.inf
        self._end: FencedError | UnavailableError | None = None
        self._settings = producer_settings(config, transactional_id)
        self._producer = Producer(self._settings)

    def begin_session(self, should_stop: Callable[[], bool]) -> bool:
        """Take the identity over, ending what a predecessor left open; waits for the brokers.

        Returns False when told to stop before they answered.
        """
        said = time.monotonic() - 8  # a hiccup of two seconds is no news
        wait = _FIRST_WAIT
        while not should_stop():
            self._beat()
            try:
                self._producer.init_transactions(wait)
            except KafkaException as error:
                reason = error.args[0]
                if reason.fatal() or not (reason.retriable() or reason.code() == KafkaError._TIMED_OUT):
                    raise _fatal(reason, self.transactional_id) from error
                if time.monotonic() - said > 10:
                    said = time.monotonic()
                    _logger.warning(
                        "waiting for Kafka: %s",
                        reason.str(),
                        extra={"transactional_id": self.transactional_id},
                    )
                # While the broker ends what a killed predecessor left open, librdkafka asks again only
                # every half second. A new client asks at once; brokers that are slow get the long wait.
                wait = min(1.0, wait * 1.2)
                if wait < _LONGEST_IMPATIENCE:
                    self._producer = Producer(self._settings)
                continue
            return True
        return False

    def run(
        self,
        outputs: Iterable[Output],
        offsets: Sequence[TopicPartition] = (),
        group_metadata: object | None = None,
    ) -> int:
        """Produce ``outputs`` and commit ``offsets`` in one transaction; returns how many were produced.

        Raises Aborted when it did not happen, FencedError when it never can from here.
        """
        count = self.begin(outputs)
        self.finish(offsets, group_metadata)
        return count

    def begin(self, outputs: Iterable[Output]) -> int:
        """The first half of :meth:`run`: open a transaction and hand the outputs to the client."""
        if self._end is not None:
            raise self._end  # librdkafka would say CONFLICT, and that it may be tried again
        try:
            self._producer.begin_transaction()
            crashpoint(Point.BEGUN)
            count = self._produce(outputs)
            crashpoint(Point.PRODUCED, self._producer.flush)
            return count
        except KafkaException as error:
            self._abort(error)

    def finish(self, offsets: Sequence[TopicPartition], group_metadata: object | None) -> None:
        """The second half: everything produced arrives, or nothing. May be called by another thread."""
        try:
            self._prepare(offsets, group_metadata)
            self._call(self._producer.commit_transaction, patience=_COMMIT_PATIENCE)
            crashpoint(Point.COMMITTED)
        except KafkaException as error:
            self._abort(error)
        finally:
            self._deadline = math.inf
        self._patience = _FIRST_PATIENCE

    @property
    def overdue(self) -> bool:
        """Whether a call of :meth:`finish` outlasts its limit: it may never return."""
        return time.monotonic() > self._deadline + _MARGIN

    def close(self) -> None:
        """Abort what is open and go; nothing is flushed."""
        self._producer.purge()

    def _produce(self, outputs: Iterable[Output]) -> int:
        produce, topics = self._producer.produce, self._topics
        count = 0
        for output in outputs:
            place = (output.stream, output.tier)
            topic = topics.get(place)
            if topic is None:
                topic = topics[place] = self._names.topic(*place)
            partition = _ANY_PARTITION if output.partition is None else output.partition
            while True:
                try:
                    produce(
                        topic,
                        output.value,
                        output.key,
                        partition,
                        None,  # no delivery report, under both of its names: the commit is the report
                        None,
                        output.timestamp or 0,
                        output.headers,
                    )
                    break
                except BufferError:
                    self._beat()
                    self._producer.poll(0.1)
            count += 1
        return count

    def _prepare(self, offsets: Sequence[TopicPartition], group_metadata: object | None) -> None:
        """All but the commit: nothing of this counts yet, so it may be begun anew with another client.

        librdkafka keeps the coordinator that it knows, and at times looks for another one only when some
        broker comes up: with one of three dead, not before that one is back. A new client looks at once,
        and ends what this one has begun. Only for a member of a group: one whose place somebody else has
        is refused its offsets; without a group, taking the identity over once more would be all it needs.
        """
        may_renew = bool(offsets) and group_metadata is not None
        patience = self._patience if may_renew else self._most_patience
        try:
            if offsets:
                send = self._producer.send_offsets_to_transaction
                self._call(send, list(offsets), group_metadata, patience=patience)
                crashpoint(Point.OFFSETS_SENT, self._producer.flush)
            self._arrive(patience)
        except KafkaException as error:
            if not may_renew or not _is_delay(error.args[0]):
                raise
            self._patience = min(2 * self._patience, self._most_patience)
            self._producer.purge()
            self._producer = Producer(self._settings)
            self._call(self._producer.init_transactions, patience=self._most_patience)
            msg = f"transaction aborted, and a new client made: {error.args[0].str()}"
            raise Aborted(msg) from error

    def _arrive(self, patience: float) -> None:
        """Wait until the brokers have all outputs, or have taken none for ``patience`` seconds."""
        self._deadline = time.monotonic() + patience
        least = len(self._producer)
        while waiting := len(self._producer):
            # Not flush(): told of a fatal error in it, it runs on with Python's exception set.
            self._producer.poll(_POLL_S)
            now = time.monotonic()
            if waiting < least:
                least, self._deadline = waiting, now + patience
            elif now > self._deadline:
                msg = f"{waiting} outputs did not arrive within {patience:g} s"
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT, msg))

    def _call(self, function: Callable[..., object], *arguments: object, patience: float) -> None:
        """A call of the transaction API, again and again while its error is only a delay."""
        self._deadline = time.monotonic() + patience
        while True:
            try:
                function(*arguments, 1.0)
            except KafkaException as error:
                # A commit that has not ended yet is in the way of an abort, and stays there.
                in_the_way = error.args[0].code() == KafkaError._CONFLICT
                late = time.monotonic() > self._deadline
                if not _is_delay(error.args[0]) or in_the_way or late:
                    raise
            else:
                return

    def _abort(self, error: KafkaException) -> NoReturn:
        reason = error.args[0]
        if reason.fatal() or reason.code() in _FENCED:
            self._end = _fatal(reason, self.transactional_id)
            raise self._end from error
        try:
            self._producer.purge(in_flight=False)
            self._call(self._producer.abort_transaction, patience=self._most_patience)
        except KafkaException as second:
            self._end = _fatal(second.args[0], self.transactional_id)
            raise self._end from second
        msg = f"transaction aborted: {reason.name()}: {reason.str()}"
        raise Aborted(msg) from error


def _is_delay(reason: KafkaError) -> bool:
    waiting = reason.retriable() or reason.code() == KafkaError._TIMED_OUT
    return bool(waiting) and not reason.txn_requires_abort()


def _fatal(reason: Any, transactional_id: str) -> FencedError | UnavailableError:
    if reason.code() in _FENCED or reason.code() == KafkaError.FENCED_INSTANCE_ID:
        return FencedError(
            f"another process took over the transactional id {transactional_id}, or the brokers gave up its "
            f"transaction while they were out of reach: {reason.str()}; this one ends. If that happens again "
            "and again: two daemons with one kafka.host? Give each host its own."
        )
    if reason.code() in _REFUSED:
        return UnavailableError(
            f"Kafka refuses the transactional producer {transactional_id}: {reason.str()}; allow the user "
            "kafka.sasl_username to write with this transactional id, to its topics and its group (ACLs)"
        )
    return UnavailableError(
        f"the transactional producer {transactional_id} cannot go on: {reason.name()}: {reason.str()}; "
        "the worker starts anew"
    )

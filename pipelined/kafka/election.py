"""One host at a time: whoever holds the first partition of a topic in a group made for that.

For work that many hosts may do but only one at a time does well, such as committing to a table. It saves
conflicts and is no lock: for a moment two may believe in themselves, and what they do must bear that.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Self

from confluent_kafka import OFFSET_END, Consumer, KafkaError, TopicPartition

from pipelined.config import Config
from pipelined.kafka.membership import check_fenced
from pipelined.kafka.settings import Names, consumer_settings

__all__ = ["Election"]

_logger = logging.getLogger("pipelined.kafka")
_POLL_S = 0.2


class Election:
    """Stands for election from ``__enter__`` to ``__exit__``, in a thread of its own.

    A static member like any other: a worker that is killed and comes back is elected still, and one that
    stays away makes room when the session times out.
    """

    def __init__(self, config: Config, worker_type: str, index: int) -> None:
        names = Names(config)
        self.group = names.election(worker_type)
        self._topic = names.topic("checkpoints")
        self._patience = config.kafka.revoke_budget_s
        self._elected = threading.Event()
        self._number = 0
        self._idle = threading.Event()
        self._idle.set()
        self._over = threading.Event()
        self._failure: BaseException | None = None
        #: Whether the group has told who is elected.
        self.joined = False
        self._instance = names.instance(worker_type, index)
        self._consumer = Consumer(consumer_settings(config, self.group, self._instance))
        self._thread = threading.Thread(target=self._serve, name="election", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    @property
    def elected(self) -> bool:
        """Whether it is this one's turn; raises FencedError when another process took its identity."""
        if self._failure is not None:
            raise self._failure
        return self._elected.is_set()

    def wait(self, seconds: float) -> bool:
        """``elected``, after waiting for it up to so long."""
        self._elected.wait(seconds)
        return self.elected

    @contextlib.contextmanager
    def term(self) -> Iterator[Callable[[], bool]]:
        """While it works; gives what tells whether it still may, as ``elected`` does.

        Lost and won again is another term, however short the time between. The office is handed over when
        the work has ended, or after a while.
        """
        self._idle.clear()
        number = self._number
        try:
            yield lambda: self.elected and self._number == number
        finally:
            self._idle.set()

    def _serve(self) -> None:
        try:
            self._consumer.subscribe(
                [self._topic], on_assign=self._assign, on_revoke=self._revoke, on_lost=self._lose
            )
            while not self._over.is_set():
                for message in self._consumer.consume(1, _POLL_S):
                    if (error := message.error()) is not None:
                        self._check(error)
        except BaseException as error:  # noqa: BLE001 - raised again where ``elected`` is asked for
            self._failure = error
        finally:
            self._elected.clear()
            self._consumer.close()

    def _check(self, error: KafkaError) -> None:
        check_fenced(error, self._instance, self.group)
        if error.code() != KafkaError._PARTITION_EOF:
            _logger.warning("consumer of %s: %s", self.group, error.str(), extra={"code": error.name()})

    def _assign(self, consumer: Consumer, places: Sequence[TopicPartition]) -> None:
        self.joined = True
        taken = [TopicPartition(place.topic, place.partition, OFFSET_END) for place in places]
        consumer.incremental_assign(taken)
        consumer.pause(taken)  # the partition stands for the office, nobody reads it
        if any(place.partition == 0 for place in places):
            self._number += 1
            self._elected.set()

    def _revoke(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        if any(place.partition == 0 for place in places):
            self._elected.clear()
            if not self._over.is_set() and not self._idle.wait(self._patience):
                _logger.warning("another host takes the work of %s over before it has ended here", self.group)
        consumer.incremental_unassign(places)

    def _lose(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        self._elected.clear()
        consumer.incremental_unassign(places)

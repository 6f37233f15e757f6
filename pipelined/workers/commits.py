"""Transactions under way: one at a time, committed by a thread, so that the stage goes on meanwhile."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, NamedTuple, TypeVar

from confluent_kafka import TopicPartition

from pipelined.errors import UnavailableError
from pipelined.kafka.transactions import Aborted, Transactor
from pipelined.kafka.window import Release
from pipelined.stages.contract import Output

__all__ = ["Commits", "Landed"]

T = TypeVar("T")

#: How often who waits for a transaction looks whether it can still end.
_LOOK_S = 0.25


class Landed(NamedTuple, Generic[T]):
    """A transaction that ended: what it carried, how many outputs, and why it was aborted, if it was.

    ``began`` is on the monotonic clock, ``seconds`` how long it took.
    """

    release: Release[T]
    outputs: int
    began: float
    seconds: float
    aborted: Aborted | None


class _Flying(NamedTuple, Generic[T]):
    release: Release[T]
    outputs: int
    began: float
    answer: Future[None]


class Commits(Generic[T]):
    """Commits releases of a window through ``transactor``."""

    def __init__(self, transactor: Transactor) -> None:
        self._transactor = transactor
        self._flying: _Flying[T] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="commit")

    @property
    def busy(self) -> bool:
        """Whether a transaction is under way, or its end not taken note of."""
        return self._flying is not None

    def launch(
        self,
        release: Release[T],
        outputs: Iterable[Output],
        places: Sequence[TopicPartition],
        group_metadata: object,
    ) -> None:
        """Begin a transaction of these outputs and input offsets; there must be none under way."""
        began = time.monotonic()
        answer: Future[None] = Future()
        count = 0
        try:
            count = self._transactor.begin(outputs)
            answer = self._thread.submit(self._transactor.finish, places, group_metadata)
        except Aborted as aborted:
            answer.set_exception(aborted)
        self._flying = _Flying(release, count, began, answer)

    def land(self, timeout: float | None = None) -> Landed[T] | None:
        """The transaction that was under way, once it has ended; None while it has not.

        Waits for it as long as it may take, or ``timeout`` seconds. Raises UnavailableError where it takes
        longer than it may, and what the transaction raises but Aborted.
        """
        flying = self._flying
        if flying is None:
            return None
        aborted = None
        try:
            while True:
                try:
                    flying.answer.result(_LOOK_S if timeout is None else timeout)
                    break
                except TimeoutError:
                    if self._transactor.overdue:
                        msg = "a transaction does not end within its time; the worker starts anew"
                        raise UnavailableError(msg) from None
                    if timeout is not None:
                        return None
        except Aborted as error:
            aborted = error
        self._flying = None
        seconds = time.monotonic() - flying.began
        return Landed(flying.release, flying.outputs, flying.began, seconds, aborted)

    def close(self) -> None:
        """Wait for nothing any more."""
        self._thread.shutdown(wait=False)

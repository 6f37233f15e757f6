"""Where an outcome goes: the one table of failures, by category (docs/reference/failures.md)."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pipelined.config.tree import Config
from pipelined.errors import Category, RecordError
from pipelined.messages.task import DownloadTask
from pipelined.stages.contract import Done, Failed, Outcome, Output, Record, Stream
from pipelined.stages.failures import HOST_BUSY, Envelope, deferrals, failed_result, retry

__all__ = ["Hold", "Routed", "Router"]

#: A task that was never tried, because its host's breaker was open say, is put off so often and no more.
_MOST_DEFERRALS = 20


class Routed(NamedTuple):
    """What is produced for an outcome, and what became of its record: done, duplicate, retried or dead."""

    outputs: Sequence[Output]
    kind: str


@dataclass(frozen=True, slots=True)
class Hold:
    """Nothing is produced: the record waits and is handed to the stage again.

    ``pause`` says that the whole stage waits with it, because the cause is not the record's.
    """

    record: Record
    error: RecordError
    pause: bool


class Router:
    """Routes the outcomes of one worker. ``dead_stream`` is where its unreadable records go."""

    def __init__(
        self, config: Config, envelope: Envelope, dead_stream: str, rng: random.Random | None = None
    ) -> None:
        self._delays = config.retry.delays_s
        self._jitter = config.retry.jitter
        self._attempts = config.retry.max_attempts
        self._bug_attempts = config.retry.bug_attempts
        self._envelope = envelope
        self._dead_stream = dead_stream
        self._random = rng or random.Random()
        self._bugs: dict[tuple[object, int], int] = {}

    def route(self, outcome: Outcome) -> Done | Routed | Hold:
        """Decide; the only state is how often a record has met an unexpected exception.

        A Done outcome says itself what is produced, and what became of its record.
        """
        if isinstance(outcome, Done):
            return outcome
        error = outcome.error
        match error.category:
            case Category.AUTH | Category.DEPENDENCY_DOWN:
                return Hold(outcome.record, error, pause=True)
            case Category.BUG:
                return self._bug(outcome)
            case Category.TRANSIENT if outcome.task is not None:
                return self._transient(outcome, outcome.task)
            case _:
                return self._dead(outcome)

    def _bug(self, outcome: Failed) -> Routed | Hold:
        place = (outcome.record.partition, outcome.record.offset)
        met = self._bugs.pop(place, 0) + 1
        if met < self._bug_attempts:
            self._bugs[place] = met
            return Hold(outcome.record, outcome.error, pause=False)
        return self._dead(outcome)

    def _transient(self, outcome: Failed, task: DownloadTask) -> Routed:
        put_off = not outcome.error.attempted and (
            deferrals(task) < _MOST_DEFERRALS or outcome.error.code == HOST_BUSY
        )
        if (task.retry_count >= self._attempts and not put_off) or not self._delays:
            return self._dead(outcome)
        asked = outcome.error.retry_after
        if asked == 0:
            return Routed((retry(outcome.record, task, outcome.error, 0, 0.0, put_off=put_off),), "retried")
        # What was not even tried comes back as soon as it may be.
        tier = 0 if put_off else min(task.retry_count, len(self._delays) - 1)
        # A server that asks for more time gets the first tier that is long enough; beyond the longest,
        # the retry scheduler sends a task around in that one until its time has come.
        while tier < len(self._delays) - 1 and self._delays[tier] < (asked or 0):
            tier += 1
        delay = max(self._delays[tier], asked or 0) * (1 + self._jitter * self._random.random())
        again = retry(outcome.record, task, outcome.error, tier, delay, put_off=put_off)
        return Routed((again,), "retried")

    def _dead(self, outcome: Failed) -> Routed:
        record, error, task = outcome.record, outcome.error, outcome.task
        if task is None:
            return Routed((self._envelope.dead_letter(self._dead_stream, record, error),), "dead")
        letter = self._envelope.dead_letter(Stream.DLQ, record, error, task)
        return Routed((letter, failed_result(record, task, error)), "dead")

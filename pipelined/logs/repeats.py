"""The same message a thousand times: the first ones are logged, the others counted and told in one line.

The same is: of one logger, level, code and kind of error, and in the same words, but for what differs from
record to record (offsets, ids, durations). An error that says anything else is another message.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass

from pipelined.logs.events import code_of

__all__ = ["Repeats"]

_WINDOW_S = 60.0
#: So many different messages are counted at once; for more, the count that is oldest is told early.
_MOST_KEYS = 500
_COMPARED = 500
#: Ids, offsets and durations. Numbers of three digits and ports stay: exit codes and HTTP's differ in kind.
_DIFFERS = re.compile(
    r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b|\b[0-9a-f]{16,}\b|(?<![:\d])\d{4,}|\d+\.\d+(?= m?s\b)",
    re.IGNORECASE,
)


@dataclass(slots=True)
class _Count:
    began: float
    seen: int = 1
    #: The first record that was held back; what it was about stands for all of them.
    example: logging.LogRecord | None = None


class Repeats:
    """Counts what is logged. ``most`` records of a kind pass within a minute; 0: all of them do.

    Memory is bounded. A CRITICAL record always passes. Not for several threads at once.
    """

    def __init__(self, most: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._clock = clock
        #: In the order in which their minutes began, and end.
        self._counts: dict[Hashable, _Count] = {}
        self._early: list[logging.LogRecord] = []

    def passes(self, record: logging.LogRecord) -> bool:
        """Whether to log the record; where not, it is counted."""
        if not self._most or record.levelno >= logging.CRITICAL:
            return True
        key = _key(record)
        count = self._counts.get(key)
        now = self._clock()
        if count is not None and now - count.began >= _WINDOW_S:
            self._early += self._told(self._counts.pop(key), now)
            count = None
        if count is None:
            if len(self._counts) >= _MOST_KEYS:
                self._early += self._told(self._counts.pop(next(iter(self._counts))), now)
            self._counts[key] = _Count(now)
            return True
        count.seen += 1
        if count.seen <= self._most:
            return True
        if count.example is None:
            count.example = _without_stack(record)
        return False

    def due(self, *, all_of_them: bool = False) -> list[logging.LogRecord]:
        """The counts to be logged now: of minutes that are over, or all, because the process ends."""
        now = self._clock()
        told, self._early = self._early, []
        while self._counts:
            key, count = next(iter(self._counts.items()))
            if now - count.began < _WINDOW_S and not all_of_them:
                break
            del self._counts[key]
            told += self._told(count, now)
        return told

    def _told(self, count: _Count, now: float) -> list[logging.LogRecord]:
        if count.example is None:
            return []
        times, seconds = count.seen - self._most, max(1, round(now - count.began))
        record = count.example
        record.msg = f"{record.msg} (repeated {times:,} times in {seconds} s)"
        record.created = time.time()
        vars(record)["repeated"] = times
        return [record]


def _key(record: logging.LogRecord) -> Hashable:
    fields = vars(record)
    kind, error = record.exc_info[:2] if record.exc_info else (None, None)
    return (
        record.name,
        record.levelno,
        _shown(fields.get("code")),
        _shown(fields.get("category")),
        kind,
        _in_common(_message(record)),
        _in_common(_shown(error)) + _in_common(_shown(fields.get("error"))),
    )


def _in_common(text: str) -> str:
    return _DIFFERS.sub("#", text[:_COMPARED])


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError, KeyError, AttributeError, RecursionError):
        return str(record.msg)  # the format shows its arguments beside it


def _shown(value: object) -> str:
    """As text: whatever its own code may raise, a log call does not."""
    if value is None or isinstance(value, str):
        return value or ""
    try:
        return str(value)
    except (TypeError, ValueError, AttributeError, RecursionError):
        return type(value).__name__


def _without_stack(record: logging.LogRecord) -> logging.LogRecord:
    """A copy that keeps no frame alive, its sentence finished."""
    fields = vars(record) | {"args": None, "exc_info": None, "exc_text": None, "stack_info": None}
    return logging.makeLogRecord(fields | {"msg": _message(record), "event": code_of(record)})

"""The formats of a log line: JSON, text, and text with priorities for journald; all of them masked."""

from __future__ import annotations

import datetime as dt
import json
import logging
import math
import re
from collections.abc import Mapping
from typing import Any

from pipelined.logs.events import code_of
from pipelined.logs.masking import MASKED, is_secret_name, mask

__all__ = ["JournalFormat", "JsonFormat", "TextFormat", "beside"]

#: What every record has; anything else on it was given as ``extra=``.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
#: Our own names: an extra field of such a name is shown as ``extra_NAME`` instead of being lost.
_OURS = frozenset(
    {"time", "level", "logger", "message", "worker", "index", "instance", "pid", "exception", "stack"}
)

#: Longest text of one field; a line much longer is cut apart by journald.
_LONGEST = 16_000
#: What is looked at of a text that is longer still.
_LOOKED_AT = 200_000
_DEEPEST = 6

_COLOURS = {logging.WARNING: "\x1b[33m", logging.ERROR: "\x1b[31m", logging.CRITICAL: "\x1b[1;31m"}
_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
_DEBUG_PRIORITY = 7


class _Format(logging.Formatter):
    """Takes a record apart into masked fields; what becomes of them is for the formats below."""

    def __init__(self, worker: str, index: int, instance: str = "") -> None:
        super().__init__()
        self.worker = worker
        self.index = index
        self.instance = instance

    def message(self, record: logging.LogRecord) -> str:
        """The sentence. Arguments that do not fit it are shown beside it: a log call never fails."""
        try:
            text = record.getMessage()
        except (TypeError, ValueError, KeyError):
            text = f"{record.msg} {record.args!r}"
        return _text(text)

    def extras(self, record: logging.LogRecord) -> dict[str, Any]:
        """Every field given as ``extra=``, as plain JSON values."""
        return {
            (f"extra_{name}" if name in _OURS else name): _field(name, value)
            for name, value in vars(record).items()
            if name not in _STANDARD
        }

    def trace(self, record: logging.LogRecord) -> dict[str, str]:
        """The traceback and the stack, where the record has them."""
        found = {}
        if record.exc_info and record.exc_info[0] is not None:
            found["exception"] = _text(self.formatException(record.exc_info))
        elif record.exc_text:
            found["exception"] = _text(record.exc_text)
        if record.stack_info:
            found["stack"] = _text(record.stack_info)
        return found


class JsonFormat(_Format):
    """One JSON object on one line: time, level, logger, event, message, worker, index, instance, pid, and
    all extra fields.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        entry = {
            "time": _time(record).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": self.message(record),
            "worker": self.worker,
            "index": self.index,
            "pid": record.process,
            **self.extras(record),
            **self.trace(record),
        }
        if self.instance:
            entry["instance"] = self.instance
        if (code := code_of(record)) is not None:
            entry["event"] = code
        return json.dumps(entry, ensure_ascii=False, allow_nan=False)


class TextFormat(_Format):
    """A readable line; tracebacks below it, indented. With ``colour``, for a terminal."""

    def __init__(self, worker: str, index: int, instance: str = "", *, colour: bool = False) -> None:
        super().__init__(worker, index, instance)
        self.colour = colour

    def format(self, record: logging.LogRecord) -> str:
        """The line and what is indented below it, without the last line end."""
        level = f"{record.levelname:<7}"
        if self.colour and (code := _COLOURS.get(record.levelno)):
            level = f"{code}{level}\x1b[0m"
        return f"{_time(record):%Y-%m-%d %H:%M:%S.%f}"[:23] + f"Z {level} {self.body(record)}"

    def body(self, record: logging.LogRecord) -> str:
        """Everything but time and level."""
        return f"[{self.worker}-{self.index} {record.process}] {self.sentence(record)}"

    def sentence(self, record: logging.LogRecord) -> str:
        """The message with its fields, and below it the traceback."""
        message = self.message(record)
        words = [_one_line(message), *beside(message, self.extras(record))]
        below = [line for text in self.trace(record).values() for line in text.splitlines()]
        return "\n    ".join([" ".join(words), *(_one_line(line) for line in below)])


class JournalFormat(TextFormat):
    """Text for journald: each line begins with its priority; journald has the time."""

    def format(self, record: logging.LogRecord) -> str:
        """The lines, each with its ``<N>``, without the last line end."""
        priority = self.priority(record)
        lines = f"{record.levelname} {self.body(record)}".splitlines()
        return "\n".join(f"<{priority}>{line}" for line in lines)

    def priority(self, record: logging.LogRecord) -> int:
        """The record's level as syslog and journald count: 7 the least, 2 critical."""
        return next((number for level, number in _PRIORITIES if record.levelno >= level), _DEBUG_PRIORITY)


def _time(record: logging.LogRecord) -> dt.datetime:
    return dt.datetime.fromtimestamp(record.created, dt.UTC)


def _text(text: str) -> str:
    """Masked first and cut then: a cut must not hide from the mask what it left over."""
    masked = mask(text[:_LOOKED_AT])
    if len(masked) > _LONGEST:
        return f"{masked[:_LONGEST]} … (cut; {len(text)} characters in all)"
    return masked


def _field(name: str, value: object) -> Any:
    return MASKED if value and is_secret_name(name) else _plain(value)


def _plain(value: object, depth: int = 0) -> Any:
    """The value as plain JSON, every text in it masked."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, bytes | bytearray):
        return _text(value.decode("utf-8", "backslashreplace"))
    if isinstance(value, Mapping) and depth < _DEEPEST:
        return {
            _text(str(key)): MASKED if item and is_secret_name(str(key)) else _plain(item, depth + 1)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset) and depth < _DEEPEST:
        return [_plain(item, depth + 1) for item in value]
    return _text(str(value))


def beside(message: str, fields: Mapping[str, Any]) -> list[str]:
    """What stands behind a message that is to be read: each field, but the event's code, what is empty, and
    what the message says already, word for word.
    """
    return [
        f"{name}={_word(value)}"
        for name, value in fields.items()
        if name != "event" and value is not None and value != "" and not _says(message, value)
    ]


def _says(message: str, value: Any) -> bool:
    if not isinstance(value, str) or value not in message:
        return False
    return bool(re.search(rf"(?<!\w){re.escape(value)}(?!\w)", message))


def _word(value: Any) -> str:
    """A field's value in a text line: bare where that is clear, as JSON where it is not."""
    if isinstance(value, str) and value.isprintable() and value and not any(c in value for c in ' ="'):
        return value
    return json.dumps(value, ensure_ascii=False)


def _one_line(text: str) -> str:
    """``text`` with control characters written out: no event may begin a line or move a cursor."""
    return "".join(c if c.isprintable() or c == " " else c.encode("unicode_escape").decode() for c in text)

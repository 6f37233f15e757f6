"""Reading logs again: lines of text or JSON, or records of journald, as one kind of entry.

An entry is a mapping as a JSON line has it: ``time``, ``level``, ``worker``, ``index``, ``pid``, ``message``
and the fields of the call. Of a text line ``message`` has the fields too. A line of something else, such as
the stacks that a killed worker leaves, is an entry with its ``message`` alone.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipelined.logs.formats import beside

__all__ = ["Entry", "Wanted", "entries", "from_journal", "seconds", "shown"]

Entry = Mapping[str, Any]

_TEXT = re.compile(
    r"(?P<time>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3})Z (?P<level>[A-Z]+) +"
    r"\[(?P<worker>[a-z-]+)-(?P<index>\d+) (?P<pid>\d+)\] (?P<message>.*)"
)
_SUPERVISOR = "supervisor"
#: The worker that a line of the supervisor names.
_CHILD = re.compile(r"(?<![\w.=-])([a-z-]+/\d+)(?!\w)| child=(\S+)")
#: Shown at the head of a line; every other field follows the message.
_HEAD = frozenset(("time", "level", "worker", "index", "pid", "message"))
#: Of no use to a reader of lines; the JSON has them.
_UNSHOWN = frozenset(
    ("event", "logger", "instance", "exception", "stack", "code_file", "code_line", "code_func", "thread")
)
_BELOW = ("exception", "stack")
_FROM_JOURNAL = {"ERROR_CODE": "code", "LOG_EVENT": "event"}
_OF_JOURNALD = frozenset({"PRIORITY", "SYSLOG_IDENTIFIER", "SYSLOG_FACILITY", "SYSLOG_RAW"})
_LEVELS = {2: "CRITICAL", 3: "ERROR", 4: "WARNING", 5: "INFO", 6: "INFO", 7: "DEBUG"}
_COLOURS = {"WARNING": "\x1b[33m", "ERROR": "\x1b[31m", "CRITICAL": "\x1b[1;31m"}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an operator asks for; what is "" or 0 matters not."""

    worker: str = ""
    level: int = 0
    trace: str = ""
    since: float = 0.0

    def takes(self, entry: Entry) -> bool:
        """Whether the entry is of a worker, or about one, as severe and as late as wanted."""
        if self.worker and self.worker not in {entry.get("worker"), _child(entry).partition("/")[0]}:
            return False
        if self.level and logging.getLevelNamesMapping().get(entry.get("level", ""), 0) < self.level:
            return False
        if self.trace and entry.get("trace_id") != self.trace and not self._is_told(entry):
            return False
        return not self.since or seconds(entry) >= self.since

    def _is_told(self, entry: Entry) -> bool:
        """Whether the trace id stands in the message, as a word."""
        return bool(re.search(rf"(?<![\w-]){re.escape(self.trace)}(?![\w-])", str(entry["message"])))


def from_journal(record: Mapping[str, Any]) -> Entry:
    """The entry of a record as ``journalctl --output=json`` has it."""
    fields = {name: _text(value) for name, value in record.items()}
    micros = int(fields.get("_SOURCE_REALTIME_TIMESTAMP") or fields.get("__REALTIME_TIMESTAMP") or 0)
    when = dt.datetime.fromtimestamp(micros / 1e6, dt.UTC)
    priority = fields.get("PRIORITY", "6")
    entry: dict[str, Any] = {
        "time": when.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": fields.get("LEVEL") or _LEVELS.get(int(priority) if priority.isdigit() else 6, "CRITICAL"),
        "worker": fields.get("WORKER") or fields.get("SYSLOG_IDENTIFIER", ""),
        "pid": int(fields["_PID"]) if fields.get("_PID", "").isdigit() else None,
        "message": fields.get("MESSAGE", ""),
    }
    for name, value in fields.items():
        if not name.startswith("_") and name not in _OF_JOURNALD:
            entry.setdefault(_FROM_JOURNAL.get(name, name.lower()), value)
    return entry


def shown(entry: Entry, *, colour: bool = False, whole: bool = False) -> str:
    """An entry to be read. ``whole``: its message has the fields already, and what stands below."""
    if "time" not in entry:
        return str(entry["message"])
    level = f"{entry.get('level', ''):<7}"
    if colour and (code := _COLOURS.get(level.strip())):
        level = f"{code}{level}\x1b[0m"
    worker = entry.get("worker", "")
    who = f"{worker}-{entry['index']}" if "index" in entry else worker
    words = [
        str(entry["time"]).replace("T", " "),
        level,
        f"[{who} {entry.get('pid', '')}]",
        str(entry["message"]),
    ]
    below: list[str] = []
    if not whole:
        fields = {name: value for name, value in entry.items() if name not in _HEAD | _UNSHOWN}
        words += beside(words[-1], fields)
        below = [line for name in _BELOW for line in str(entry.get(name, "")).splitlines()]
    return "\n    ".join([" ".join(words), *below])


def entries(lines: list[bytes]) -> Iterator[Entry]:
    """What these lines tell; a line that is indented belongs to the one before."""
    present: dict[str, Any] | None = None
    for data in lines:
        line = data.decode("utf-8", "replace")
        if line.startswith((" ", "\t")) and present is not None:
            present["message"] += f"\n{line}"
            continue
        if present is not None:
            yield present
        present = _parsed(line)
    if present is not None:
        yield present


def _parsed(line: str) -> dict[str, Any]:
    if line.startswith("{"):
        try:
            entry = json.loads(line)
        except ValueError:
            return {"message": line}
        return {"message": "", **entry} if "time" in entry else {"message": line}
    if (match := _TEXT.fullmatch(line)) is None:
        return {"message": line}
    fields: dict[str, Any] = match.groupdict()
    return fields | {
        "time": fields["time"].replace(" ", "T") + "Z",
        "index": int(fields["index"]),
        "pid": int(fields["pid"]),
        "whole": True,
    }


def _child(entry: Entry) -> str:
    """The worker that an entry of the supervisor is about."""
    if "child" in entry:
        return str(entry["child"])
    if not entry.get("whole") or entry["worker"] != _SUPERVISOR:
        return ""
    found = _CHILD.search(str(entry["message"]))
    return (found[1] or found[2]) if found else ""


def seconds(entry: Entry) -> float:
    """When it was, since the epoch; 0 where it does not say."""
    try:
        return dt.datetime.fromisoformat(str(entry.get("time"))).timestamp()
    except ValueError:
        return 0.0


def _text(value: object) -> str:
    """A field of journalctl: bytes that are no text come as numbers, several values as a list."""
    if isinstance(value, list):
        if all(isinstance(each, int) for each in value):
            return bytes(value).decode("utf-8", "replace")
        return _text(value[-1])
    return "" if value is None else str(value)

"""The positions of the sources as an operator sees and sets them."""

from __future__ import annotations

import contextlib
from typing import NamedTuple

from pipelined.config import Config
from pipelined.messages.codec import iso_ms, parse_time
from pipelined.sources.eventhouse import EventhouseSource
from pipelined.sources.eventhouse.diagnosis import RESET
from pipelined.sources.eventhouse.position import Position
from pipelined.sources.eventhouse.range import tick
from pipelined.sources.eventhub import EventhubSource
from pipelined.sources.hub_position import Position as HubPosition
from pipelined.sources.hub_position import read_position

__all__ = ["Reached", "key_of", "missing", "reached", "start_position"]

_EVENTHOUSE = "eventhouse-poller"
_NEEDED = {
    _EVENTHOUSE: ("eventhouse", ("url", "database", "table")),
    "eventhub-reader": ("eventhub", ("bootstrap", "topic")),
}


class Reached(NamedTuple):
    """A position in words, and when the newest event taken came to the source (epoch seconds)."""

    words: str
    newest: float | None


def missing(config: Config, worker_type: str) -> list[str]:
    """The keys of the configuration that the source cannot do without, and that are not set."""
    section, names = _NEEDED[worker_type]
    return [f"{section}.{name}" for name in names if not getattr(getattr(config, section), name)]


def key_of(config: Config, worker_type: str) -> str:
    """The key of the source's position on the checkpoints topic; its configuration is complete."""
    with contextlib.closing(_source(config, worker_type)) as source:
        return source.key


def reached(worker_type: str, value: bytes) -> Reached:
    """What a position means; raises ConfigError for one that this version cannot read."""
    if worker_type == _EVENTHOUSE:
        return _in_table(Position.read(value, RESET))
    return _in_hub(read_position(value))


def _in_table(position: Position) -> Reached:
    mark = position.watermark
    if mark is not None:
        settled = (
            f"all that was ingested until {mark.settled} is read" if mark.settled else "at the first row"
        )
        return Reached(f"{settled}, by times without cursors", _seconds(position.last or mark.settled))
    newest = f"; the newest row taken came in at {position.last}" if position.last else ""
    since = f" at or after {position.since}" if position.since else ""
    if position.until is not None:
        where = f"behind the row of {position.key.it}" if position.key else "at its beginning"
        words = f"in the window up to cursor {position.until}, {where}"
    elif position.cursor:
        words = f"all rows up to cursor {position.cursor} are read"
    else:
        words = f"at the first row ingested{since}" if since else "at the first row"
    return Reached(f"{words}{newest}", _seconds(position.last))


def _in_hub(position: HubPosition) -> Reached:
    places = sorted(position.partitions.items())
    newest = max((place.timestamp for _, place in places), default=-1)
    words = "next offsets " + ", ".join(f"{number}@{place.next}" for number, place in places)
    if newest < 0:
        return Reached(f"{words}; nothing is read yet", None)
    return Reached(f"{words}; the newest event taken came in at {iso_ms(newest)}", newest / 1000)


def _seconds(text: str) -> float | None:
    return parse_time(text).timestamp() if text else None


def start_position(config: Config, worker_type: str, to: str) -> bytes:
    """The position of ``now``, ``beginning`` or a time, as the source keeps it; it may be asked for that.

    Raises UsageError for what is none of them, and what a source's ``fetch`` raises (sources.contract).
    """
    if to not in {"now", "beginning"}:
        to = tick(to)
    with contextlib.closing(_source(config, worker_type)) as source:
        return source.begin_at(to)


def _source(config: Config, worker_type: str) -> EventhouseSource | EventhubSource:
    return EventhouseSource(config) if worker_type == _EVENTHOUSE else EventhubSource(config)

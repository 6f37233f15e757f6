"""How far the Event Hub is read, as it is kept with our rows, and held against what the hub has now."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

import msgspec

from pipelined.errors import ConfigError
from pipelined.kafka.hub import Bounds
from pipelined.messages.codec import encode

__all__ = ["Lost", "Place", "Position", "read_position"]

VERSION = 1
_RESET = (
    "Reading on would skip events without a word. Find out what happened; "
    "`pipelinectl sources reset eventhub` then reads the hub from its beginning: events that are known "
    "already are recognised within ingest.dedup_horizon_hours"
)


class Lost(NamedTuple):
    """Offsets of a partition that the hub removed before they were read, ``end`` exclusive."""

    partition: int
    start: int
    end: int


class Place(msgspec.Struct, array_like=True):
    """Of one partition: the next offset, and the last record read with its time (ms); -1 where none was."""

    next: int
    last: int = -1
    timestamp: int = -1


class Position(msgspec.Struct, kw_only=True):
    """The places of all partitions of one hub. ``topic_id`` is empty where the service does not tell it."""

    version: int = VERSION
    hub: str
    topic_id: str = ""
    partitions: dict[int, Place]

    def encoded(self) -> bytes:
        """The position as it is kept."""
        return encode(self)

    def held_against(
        self, topic_id: str, bounds: Mapping[int, Bounds], refused: Collection[int] = ()
    ) -> list[Lost]:
        """See whether this is a position in the hub as it is now, and move it behind what is gone.

        ``refused`` are partitions whose next offset the service did not take. Raises ConfigError where the
        hub is another one than it was, or ends before what was read.
        """
        self.belongs_to(topic_id)
        if missing := sorted(self.partitions.keys() - bounds.keys()):
            raise ConfigError(
                f"the Event Hub {self.hub} has {len(bounds)} partitions, and partition {missing[0]} was "
                f"read: it is not the hub that it was. {_RESET}"
            )
        lost = []
        for number, place in self.partitions.items():
            low, high = bounds[number]
            # An Event Hub has been seen to tell the offset of its last record for its end.
            if place.next > high + (number not in refused):
                raise ConfigError(
                    f"partition {number} of the Event Hub {self.hub} was read up to offset {place.next}, but "
                    f"it ends at {high}: the hub was made again, or has lost events. {_RESET}"
                )
            if place.next < low:
                lost.append(Lost(number, place.next, low))
                place.next = low
        self.topic_id = topic_id or self.topic_id
        return lost

    def belongs_to(self, topic_id: str) -> None:
        """Raise ConfigError where this is the id of another hub; an empty one says nothing."""
        if self.topic_id and topic_id and self.topic_id != topic_id:
            raise ConfigError(f"the Event Hub {self.hub} was deleted and made again. {_RESET}")

    def recognised(self, number: int, offset: int, timestamp: int) -> bool:
        """Whether a record that is read again may be what was read at that offset. Raises ConfigError."""
        place = self.partitions[number]
        if offset != place.last:
            return offset < place.next
        if timestamp != place.timestamp:
            raise ConfigError(
                f"partition {number} of the Event Hub {self.hub} has another event at offset {offset} than "
                f"the one that was read there: the hub was made again. {_RESET}"
            )
        return True


def read_position(value: bytes) -> Position:
    """A position as it was kept; raises ConfigError for one that this version cannot read."""
    try:
        position = msgspec.json.decode(value, type=Position)
    except msgspec.DecodeError as error:
        raise ConfigError(f"the position of the Event Hub cannot be read: {error}. {_RESET}") from error
    if position.version != VERSION:
        raise ConfigError(
            f"the position of the Event Hub is of version {position.version}, this is for {VERSION}: "
            "run the version that wrote it, or a later one"
        )
    return position

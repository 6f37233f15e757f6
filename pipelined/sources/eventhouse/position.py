"""How far the table is read: what is kept on the checkpoints topic, as JSON."""

from __future__ import annotations

import msgspec

from pipelined.errors import ConfigError
from pipelined.messages.codec import UNREADABLE

__all__ = ["Key", "Position", "Watermark"]

_VERSION = 1


class Key(msgspec.Struct, frozen=True, omit_defaults=True):
    """Behind which row: its ingestion time as the service writes it, and its id.

    Within a crowd (rows that share both) the hash of the last distinct row sent, "" before the first, and of
    the next one how many copies were sent; None outside of one.
    """

    it: str
    id: str
    hash: str | None = None
    copies: int = 0


class Watermark(msgspec.Struct, frozen=True, omit_defaults=True):
    """The position where there are no cursors.

    All rows ingested until ``settled`` are dealt with. ``key`` is the last row read in order. ``seen`` are
    digests of the rows sent that were ingested after ``settled``, in base64, by the minute they came in.
    """

    settled: str
    key: Key | None = None
    seen: dict[str, str] = {}


class Position(msgspec.Struct, frozen=True, omit_defaults=True):
    """Either of cursors, or a watermark.

    What came until ``cursor`` is read; ``until`` closes the window that is read now, None where none is,
    ``key`` is the last row of it, and ``asked`` the service's time when the window was closed. ``since``
    leaves out what was ingested before it, ``last`` is the newest ingestion time of what was sent, ``kind``
    the type of the column of ids.
    """

    version: int
    cursor: str = ""
    until: str | None = None
    key: Key | None = None
    asked: str = ""
    since: str = ""
    last: str = ""
    kind: str = ""
    watermark: Watermark | None = None

    @classmethod
    def beginning(cls, since: str = "") -> Position:
        """Before all rows, or all of those ingested at or after a time."""
        return cls(_VERSION, since=since)

    @classmethod
    def read(cls, value: bytes, command: str) -> Position:
        """From its bytes. ConfigError where another version wrote it; ``command`` is what decides then."""
        try:
            position = msgspec.json.decode(value, type=cls)
        except UNREADABLE as error:
            msg = f"the position of the Eventhouse on the checkpoints topic is none ({error}); {command}"
            raise ConfigError(msg) from error
        if position.version != _VERSION:
            msg = (
                f"the position of the Eventhouse is of version {position.version}, not {_VERSION}; {command}"
            )
            raise ConfigError(msg)
        return position

    def to_bytes(self) -> bytes:
        """As it is kept."""
        return msgspec.json.encode(self)

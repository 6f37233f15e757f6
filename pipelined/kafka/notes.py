"""What a committed offset says besides itself, in the metadata that Kafka keeps with it.

``1,TOPIC-ID,DEAD,BEYOND,CHECKSUM``: the version; the id of the topic that the offset belongs to, by which
a topic that was deleted and made anew is told from the old one; how far dead letters have been written
(Kafka → Delta); what is done beyond the offset (``kafka.progress``, in base 85, which has no comma); and a
checksum over all of it, the partition and the offset included, so that a note that belongs to another
offset, was damaged, or is somebody else's, is known for that.
"""

from __future__ import annotations

import base64
import zlib
from typing import NamedTuple

from pipelined.kafka.progress import Progress, decode

__all__ = ["Note", "NoteError", "read_note", "write_note"]

_VERSION = "1"


class NoteError(ValueError):
    """The metadata of an offset is not a note of ours about it; the text says why."""


class Note(NamedTuple):
    """``topic_id`` is empty where it could not be had; ``dead`` is the offset behind the last dead letter."""

    topic_id: str
    progress: Progress
    dead: int = 0


def write_note(
    topic: str, number: int, offset: int, *, topic_id: str, beyond: bytes = b"", dead: int = 0
) -> str:
    """The metadata to commit with ``offset`` of a partition; at most 4,096 characters."""
    text = f"{_VERSION},{topic_id},{dead or ''},{base64.b85encode(beyond).decode()}"
    return f"{text},{_checksum(topic, number, offset, text)}"


def read_note(topic: str, number: int, offset: int, metadata: str) -> Note:
    """The note that was committed with ``offset``. Raises NoteError for anything else."""
    text, _, checksum = metadata.rpartition(",")
    version = text.partition(",")[0]
    if not metadata:
        raise NoteError("it has none: the offset was set by hand, or by another program")
    if not version.isdigit():
        raise NoteError("it is not of this program")
    if version != _VERSION:
        raise NoteError(f"it is of version {version}; this program writes {_VERSION}")
    if checksum != _checksum(topic, number, offset, text):
        raise NoteError("it is damaged, or was written for another offset")
    _, topic_id, dead, beyond = text.split(",")
    return Note(topic_id, decode(offset, base64.b85decode(beyond)), int(dead or 0))


def _checksum(topic: str, number: int, offset: int, text: str) -> str:
    return f"{zlib.crc32(f'{topic}/{number}@{offset},{text}'.encode()):08x}"

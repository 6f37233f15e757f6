"""What lies beside the topics, as the balance reads it; the real things are in tables, files and topics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import NamedTuple, Protocol

from pipelined.ledger.content import Item
from pipelined.ledger.identity import Key

__all__ = ["AttachmentRow", "Evidence", "FoundFile", "Origin", "SourceEvidence"]


class Origin(NamedTuple):
    """The place of a record: where a dead letter came from, by its headers."""

    topic: str
    partition: int
    offset: int


class AttachmentRow(NamedTuple):
    """What the ledger reads of one row of the attachments table."""

    trace_id: str
    attachment_id: str
    status: str
    blob_path: str
    size: int | None = None
    sha256: str | None = None


class FoundFile(NamedTuple):
    """One file as it lies in the store; ``sha256`` is None where there is no such file."""

    path: str
    size: int
    sha256: str | None


class Evidence(Protocol):
    """The tables, the store, and single records of the topics. A table that does not exist is None."""

    def event_rows(self) -> Iterable[str] | None:
        """The trace id of each row of the events table."""

    def attachment_rows(self) -> Iterable[AttachmentRow] | None:
        """Each row of the attachments table."""

    def failed_rows(self) -> Iterable[str] | None:
        """The attachment id of each row of the table of failed attachments."""

    def paths(self) -> Iterable[str]:
        """The path of each file in the store."""

    def read(self, paths: Iterable[str]) -> Iterator[FoundFile]:
        """Each of these files, read to its end, in any order."""

    def value_at(self, origin: Origin) -> bytes | None:
        """The value of that record, None where the topics hold no such record."""

    def replays(self, keys: Collection[Key]) -> Mapping[Key, int]:
        """How often each of these attachments was replayed from the DLQ, where it was."""


class SourceEvidence(Protocol):
    """A source itself, as the balance reads it; ``name`` is what the header ``source`` says of its events.

    ``begins_anywhere``: what was there before it was first read is not taken; ``forgets``: some of what it
    held is deleted already.

    A source goes on while it is judged: what it held ``before`` events.raw was read must be there, and what
    is there must be among the ``items`` that it holds after that.
    """

    name: str
    before: Counter[Item]

    @property
    def begins_anywhere(self) -> bool:
        """Whether its events may be missing from events.raw."""

    @property
    def forgets(self) -> bool:
        """Whether events.raw may have events that it does not hold any more."""

    def items(self) -> Iterable[Item]:
        """Each thing that it holds now."""

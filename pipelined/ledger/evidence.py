"""What lies beside the topics, as the balance reads it; the real things are in tables, files and topics."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import NamedTuple, Protocol

from pipelined.ledger.identity import Key

__all__ = ["AttachmentRow", "Evidence", "FoundFile", "Origin"]


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

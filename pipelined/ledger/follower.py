"""Following the pipeline: books that are kept up to date, and the counts of a live picture."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import NamedTuple, Self

from pipelined.config.tree import Config
from pipelined.ledger.balance import Balance
from pipelined.ledger.books import Books, attachment_of
from pipelined.ledger.eventhouse import EventhouseReader
from pipelined.ledger.eventhub import EventhubReader
from pipelined.ledger.files import FileReader
from pipelined.ledger.identity import Key, parse
from pipelined.ledger.judging import judge_books
from pipelined.ledger.tables import TableReader
from pipelined.ledger.topics import TopicReader, topic_name

__all__ = ["REPLAY_HEADER", "Follower", "Progress", "SourceProgress"]

#: Header of a record that comes from the DLQ: the place of its dead letter.
REPLAY_HEADER = "dlq_replay_of"

_TABLE_SECONDS = 0.5


class SourceProgress(NamedTuple):
    """How many rows or messages a source holds, and how many records of it are on events.raw."""

    name: str
    held: int
    taken: int


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the pipeline is. Numbers of records, attachments and rows.

    ``unaccounted``: raw events not yet ingested, found duplicate, or dead; ``attachments``: those of the
    ingested events; ``results``: attachments with a final result, ``completed`` of them well; ``failures``:
    final failures, repeated ones included; ``retrying``: attachments that failed for now and wait in a retry
    tier or are tried again; ``sources`` are those that are configured.
    """

    events_raw: int = 0
    unaccounted: int = 0
    ingested: int = 0
    events_dlq: int = 0
    attachments: int = 0
    results: int = 0
    completed: int = 0
    failures: int = 0
    downloads_dlq: int = 0
    retrying: int = 0
    event_rows: int = 0
    attachment_rows: int = 0
    failed_rows: int = 0
    sources: tuple[SourceProgress, ...] = ()

    @property
    def settled(self) -> bool:
        """Whether, by the counts, nothing is on its way any more. The balance has the last word."""
        return (
            not self.unaccounted
            and self.ingested == self.event_rows
            and self.attachments == self.results == self.attachment_rows
            and self.failures == self.failed_rows
            and all(source.held <= source.taken for source in self.sources)
        )


class Follower:
    """Reads the topics as they grow, and the sources that are configured; a context manager.

    Without ``sources`` these are not asked: what is on events.raw is taken for all there was. Its methods
    raise ``UnavailableError``.
    """

    def __init__(self, config: Config, *, sources: bool = True) -> None:
        self._sources: list[EventhouseReader | EventhubReader] = []
        if sources and config.eventhouse.url:
            self._sources.append(EventhouseReader(config))
        if sources and config.eventhub.bootstrap:
            self._sources.append(EventhubReader(config))
        self._topics = TopicReader(config, with_origins=bool(self._sources))
        self._books = Books(
            topic_name(config, "events_raw"),
            topic_name(config, "downloads_results"),
            [source.name for source in self._sources],
        )
        self._tables = TableReader(config)
        self._files = FileReader(config)
        self._rows: dict[str, int] = {}
        self._rows_due = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the connections back."""
        self._topics.close()
        for source in self._sources:
            source.close()

    def poll(self, timeout: float = 0.0) -> Progress:
        """Take in what has come, waiting for it at most ``timeout`` seconds; the tables twice a second."""
        for record in self._topics.read(timeout):
            self._books.add(record)
        if time.monotonic() >= self._rows_due:
            self._count_rows()
        return self._progress([source.poll() for source in self._sources])

    def catch_up(self) -> Progress:
        """Take in everything that is committed now, sources and tables included."""
        held = [source.catch_up() for source in self._sources]
        for records in self._topics.read_to_end():
            for record in records:
                self._books.add(record)
        self._count_rows()
        return self._progress(held)

    def balance(self) -> Balance:
        """Everything that is committed now, balanced: sources, topics, tables and files."""
        for source in self._sources:
            source.remember()
        self.catch_up()
        evidence = _Evidence(self._topics, self._tables, self._files)
        balance = judge_books(self._books, evidence, self._sources)
        hidden = self._topics.hidden()
        if hidden:
            balance.notes.append(
                f"{hidden} records lie behind a transaction that is still open, and are not in this balance"
            )
        return balance

    def _count_rows(self) -> None:
        for name in ("events", "attachments", "attachments_failed"):
            self._rows[name] = self._tables.count(name)
        self._rows_due = time.monotonic() + _TABLE_SECONDS

    def _progress(self, held: Sequence[int]) -> Progress:
        books = self._books
        return Progress(
            events_raw=books.counts["events_raw"],
            unaccounted=books.unaccounted,
            ingested=books.ingested,
            events_dlq=books.counts["events_dlq"],
            attachments=books.claimed,
            results=books.finished,
            completed=books.completed,
            failures=books.failures,
            downloads_dlq=books.counts["downloads_dlq"],
            retrying=len(books.retrying),
            event_rows=self._rows["events"],
            attachment_rows=self._rows["attachments"],
            failed_rows=self._rows["attachments_failed"],
            sources=tuple(
                SourceProgress(source.name, count, books.by_source[source.name])
                for source, count in zip(self._sources, held, strict=True)
            ),
        )


class _Evidence:
    """The real evidence: tables and store, and the topics where a single record is asked for."""

    def __init__(self, topics: TopicReader, tables: TableReader, files: FileReader) -> None:
        self._topics = topics
        self.event_rows = tables.event_rows
        self.attachment_rows = tables.attachment_rows
        self.failed_rows = tables.failed_rows
        self.paths = files.paths
        self.read = files.read
        self.value_at = topics.value_at

    def replays(self, keys: Collection[Key]) -> Mapping[Key, int]:
        """Dead letters of each attachment that were put into downloads.pending again, by their header."""
        found: set[tuple[Key, str]] = set()
        for value, headers in self._topics.records_of("downloads_pending"):
            letter = headers.get(REPLAY_HEADER)
            if letter is None:
                continue
            key = attachment_of(parse(value))
            if key is not None and key in keys:
                found.add((key, letter))
        return Counter(key for key, _ in found)

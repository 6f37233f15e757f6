"""The books: what the topics say, kept small, filled one record at a time in any order of topics.

For each raw record its place, a hash of its bytes and its event are kept (24 bytes); for each event and
attachment one small object. The bytes themselves are not kept.
"""

from __future__ import annotations

import bisect
from array import array
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pipelined.ledger.content import Item, item_of_event, item_of_record
from pipelined.ledger.evidence import Origin
from pipelined.ledger.identity import (
    Key,
    attachment_key,
    attachment_urls,
    key_of,
    parse,
    text_of,
    trace_id_of,
)

__all__ = ["FINAL", "Attachment", "Books", "DeadLetter", "Event", "RawLog", "Record", "attachment_of"]

#: The statuses an attachment can end with.
FINAL = ("completed", "failed", "failed_permanent")


class Record(NamedTuple):
    """A record of a topic; ``section`` is the topic's section in the configuration."""

    section: str
    partition: int
    offset: int
    value: bytes
    headers: Mapping[str, str]


class DeadLetter(NamedTuple):
    """A record of downloads.dlq; ``key`` is its attachment's, where it has one."""

    place: str
    key: Key | None
    origin: Origin | None
    digest: int


@dataclass(slots=True, eq=False)
class Event:
    """One trace id. ``raw`` counts its raw records that are not dead; ``partition`` is the ingested one's.

    ``claims`` are the attachments of each raw record that has any, with that record's partition and offset.
    """

    number: int
    raw: int = 0
    ingested: int = 0
    partition: int = -1
    claims: list[tuple[int, int, tuple[bytes, ...]]] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Attachment:
    """One attachment id as the topics tell it. ``event`` is the one that claims it, None if none does."""

    number: int
    event: Event | None = None
    results: int = 0
    failures: int = 0
    status: str = ""


@dataclass(slots=True, eq=False)
class RawLog:
    """The records of one partition of events.raw, in their order."""

    offsets: array[int] = field(default_factory=lambda: array("q"))
    digests: array[int] = field(default_factory=lambda: array("q"))
    events: list[tuple[Key, Event] | None] = field(default_factory=list)

    def at(self, offset: int) -> int | None:
        """The index of the record at this offset, None where there is none."""
        index = bisect.bisect_left(self.offsets, offset)
        return index if index < len(self.offsets) and self.offsets[index] == offset else None


class Books:
    """Everything the topics tell; the names of two of them are what origin headers must carry.

    ``sources`` are those to be judged: what events.raw has of each is in ``delivered``, those by a back-fill
    in ``refilled`` too; ``by_source`` counts the records by what their header says.

    Records of one partition must come in their order; topics and partitions may mix. The counters are
    always those of the records seen so far:

    * ``unaccounted``: raw records that are neither dead, nor of an ingested trace id;
    * ``ingested``: distinct trace ids in events.ingested; ``claimed``: their attachments;
    * ``finished``: attachments with a final result; ``failures``: results that say failed;
    * ``retrying``: attachments that were put into a retry topic and have no final result yet.
    """

    def __init__(self, raw_topic: str, results_topic: str, sources: Collection[str] = ()) -> None:
        self.raw_topic = raw_topic
        self.results_topic = results_topic
        self.delivered: dict[str, Counter[Item]] = {name: Counter() for name in sources}
        self.refilled: Counter[Item] = Counter()
        self.by_source: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()
        self.raw: dict[int, RawLog] = {}
        self.events: dict[Key, Event] = {}
        self.attachments: dict[Key, Attachment] = {}
        self.dead_events: dict[tuple[int, int], list[int]] = {}
        self.stray_dead_events: list[str] = []
        self.dead_letters: list[DeadLetter] = []
        self.unreadable: list[tuple[str, int, int]] = []
        self.retrying: set[Key] = set()
        self.unaccounted = self.ingested = self.claimed = self.finished = self.completed = self.failures = 0
        self._readers = {
            "events_raw": self._raw,
            "events_ingested": self._ingested,
            "events_dlq": self._dead_event,
            "downloads_results": self._result,
            "downloads_dlq": self._dead_letter,
            "downloads_retry": self._retry,
        }

    def add(self, record: Record) -> None:
        """Enter one record."""
        self.counts[record.section] += 1
        self._readers[record.section](record)

    def event(self, key: Key) -> Event:
        """The event of that key, new if need be."""
        found = self.events.get(key)
        if found is None:
            found = self.events[key] = Event(len(self.events))
        return found

    def attachment(self, key: Key) -> Attachment:
        """The attachment of that key, new if need be."""
        found = self.attachments.get(key)
        if found is None:
            found = self.attachments[key] = Attachment(len(self.attachments))
        return found

    def _raw(self, record: Record) -> None:
        log = self.raw.get(record.partition)
        if log is None:
            log = self.raw[record.partition] = RawLog()
        document = parse(record.value)
        if self.delivered:
            self._deliver(record, document)
        trace_id = trace_id_of(document)
        log.offsets.append(record.offset)
        log.digests.append(hash(record.value))
        dead = (record.partition, record.offset) in self.dead_events
        if document is None or trace_id is None:
            log.events.append(None)
            self.unaccounted += not dead
            return
        key = key_of(trace_id)
        event = self.event(key)
        log.events.append((key, event))
        self._claim(record, event, trace_id, attachment_urls(document))
        if not dead:
            event.raw += 1
            self.unaccounted += not event.ingested

    def _deliver(self, record: Record, document: dict[str, Any] | None) -> None:
        source = record.headers.get("source", "")
        self.by_source[source] += 1
        if source == "eventhouse" and source in self.delivered:
            item = item_of_event(document, record.value)
            self.delivered[source][item] += 1
            self.refilled[item] += "backfill" in record.headers
        elif source in self.delivered:
            from_array = "origin_item" in record.headers
            self.delivered[source][item_of_record(document, record.value, from_array=from_array)] += 1

    def _claim(self, record: Record, event: Event, trace_id: str, urls: list[str]) -> None:
        if not urls:
            return
        keys = tuple(dict.fromkeys(attachment_key(trace_id, url) for url in urls))
        for key in keys:
            self.attachment(key).event = event
        event.claims.append((record.partition, record.offset, keys))
        if event.ingested and len(event.claims) == 1:
            self.claimed += len(keys)

    def _ingested(self, record: Record) -> None:
        trace_id = trace_id_of(parse(record.value))
        if trace_id is None:
            self.unreadable.append((record.section, record.partition, record.offset))
            return
        event = self.event(key_of(trace_id))
        event.ingested += 1
        event.partition = record.partition
        if event.ingested == 1:
            self.ingested += 1
            self.unaccounted -= event.raw
            self.claimed += len(event.claims[0][2]) if event.claims else 0

    def _dead_event(self, record: Record) -> None:
        origin = _origin(record)
        if origin is None or origin.topic != self.raw_topic:
            self.stray_dead_events.append(f"{record.partition}/{record.offset}")
            return
        place = (origin.partition, origin.offset)
        digests = self.dead_events.setdefault(place, [])
        digests.append(hash(record.value))
        log = self.raw.get(origin.partition)
        index = log.at(origin.offset) if log else None
        if len(digests) > 1 or log is None or index is None:
            return
        entry = log.events[index]
        if entry is None:
            self.unaccounted -= 1
        else:
            entry[1].raw -= 1
            self.unaccounted -= not entry[1].ingested

    def _result(self, record: Record) -> None:
        document = parse(record.value)
        key = attachment_of(document)
        status = document.get("status") if document else None
        if key is None or status not in FINAL:
            self.unreadable.append((record.section, record.partition, record.offset))
            return
        attachment = self.attachment(key)
        self.finished += not attachment.results
        self.completed += (status == "completed") - (attachment.status == "completed")
        attachment.results += 1
        attachment.status = FINAL[FINAL.index(status)]  # one text for all, not one for each
        if status != "completed":
            attachment.failures += 1
            self.failures += 1
        self.retrying.discard(key)

    def _dead_letter(self, record: Record) -> None:
        key = attachment_of(parse(record.value))
        if key is None and record.headers.get("attachment_id"):
            key = key_of(record.headers["attachment_id"])
        place = f"{record.partition}/{record.offset}"
        self.dead_letters.append(DeadLetter(place, key, _origin(record), hash(record.value)))

    def _retry(self, record: Record) -> None:
        key = attachment_of(parse(record.value))
        if key is not None and not self.attachment(key).results:
            self.retrying.add(key)


def attachment_of(document: dict[str, object] | None) -> Key | None:
    """The key of the attachment that a task, cached download or result is about."""
    text = text_of(document.get("attachment_id")) if document else None
    return key_of(text) if text else None


def _origin(record: Record) -> Origin | None:
    headers = record.headers
    try:
        return Origin(
            headers["dlq_origin_topic"],
            int(headers["dlq_origin_partition"]),
            int(headers["dlq_origin_offset"]),
        )
    except (KeyError, ValueError):
        return None

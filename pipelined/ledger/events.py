"""Judging the events: each raw record accounted for once, each accepted one a row."""

from __future__ import annotations

from pipelined.ledger.balance import Balance
from pipelined.ledger.books import Attachment, Books, Event
from pipelined.ledger.evidence import Evidence
from pipelined.ledger.identity import Key, key_of, name_of

__all__ = ["judge_events"]


def judge_events(books: Books, evidence: Evidence, balance: Balance) -> dict[Key, Attachment]:
    """Enter the events into the balance; returns the attachments that the accepted ones claim.

    A raw record is dead when a record of events.dlq names its place and holds its bytes; it is accepted
    when it is the first one alive of its trace id in the partition in which events.ingested has that id;
    it is a duplicate when the id was accepted otherwise. What is none of them is lost.
    """
    expected = _judge_raw(books, balance)
    _judge_dead(books, balance)
    _judge_ingested(books, balance)
    _judge_rows(books, evidence, balance)
    return expected


def _judge_raw(books: Books, balance: Balance) -> dict[Key, Attachment]:
    accepted, lost = bytearray(len(books.events)), bytearray(len(books.events))
    expected: dict[Key, Attachment] = {}

    def accept(event: Event, partition: int | None, offset: int | None) -> None:
        accepted[event.number] = 1
        balance.accepted += 1
        for at, position, keys in event.claims:
            if partition is None or (at, position) == (partition, offset):
                expected.update((key, books.attachments[key]) for key in keys)
                break

    for partition, log in sorted(books.raw.items()):
        balance.read += len(log.offsets)
        for offset, digest, entry in zip(log.offsets, log.digests, log.events, strict=True):
            place = f"{books.raw_topic}/{partition}/{offset}"
            dead = books.dead_events.get((partition, offset))
            if dead is not None:
                balance.dead += 1
                if digest not in dead:
                    balance.differ(
                        "dead_letter_differs", place, "its record in events.dlq does not hold its bytes"
                    )
            elif entry is None:
                balance.differ("event_lost", place, "it is unreadable, yet not in events.dlq")
            elif not entry[1].ingested:
                if not lost[entry[1].number]:
                    lost[entry[1].number] = 1
                    balance.differ(
                        "event_lost",
                        name_of(entry[0]),
                        f"{place} is neither in events.ingested nor in events.dlq",
                    )
            elif entry[1].partition == partition and not accepted[entry[1].number]:
                accept(entry[1], partition, offset)
            else:
                balance.duplicate += 1

    for key, event in books.events.items():
        if not event.ingested or accepted[event.number]:
            continue
        if event.raw:
            balance.duplicate -= 1
            accept(event, None, None)
            balance.differ(
                "event_misplaced",
                name_of(key),
                f"it is in partition {event.partition} of events.ingested, but in another one of events.raw",
            )
        else:
            balance.differ("event_unknown", name_of(key), "it is in events.ingested, but not in events.raw")
    return expected


def _judge_dead(books: Books, balance: Balance) -> None:
    balance.dead_letters += books.counts["events_dlq"]
    for (partition, offset), digests in books.dead_events.items():
        place = f"{books.raw_topic}/{partition}/{offset}"
        log = books.raw.get(partition)
        if log is None or log.at(offset) is None:
            balance.differ(
                "dead_letter_unknown", place, "events.dlq names this record, but it does not exist"
            )
        if len(digests) > 1:
            balance.differ("dead_letter_doubled", place, f"it is {len(digests)} times in events.dlq")
    for place in books.stray_dead_events:
        balance.differ(
            "dead_letter_unknown", f"events.dlq/{place}", "its headers do not say which raw record it was"
        )


def _judge_ingested(books: Books, balance: Balance) -> None:
    for key, event in books.events.items():
        if event.ingested > 1:
            balance.differ("event_doubled", name_of(key), f"it is {event.ingested} times in events.ingested")
    for section, partition, offset in books.unreadable:
        if section == "events_ingested":
            balance.differ(
                "event_unreadable", f"events.ingested/{partition}/{offset}", "no event can be read from it"
            )


def _judge_rows(books: Books, evidence: Evidence, balance: Balance) -> None:
    ids = evidence.event_rows()
    if ids is None:
        if books.ingested:
            balance.differ(
                "table_missing", "events", f"the table does not exist; {books.ingested} events have no row"
            )
        return
    rows = bytearray(len(books.events))
    for text in ids:
        balance.rows += 1
        event = books.events.get(key_of(text))
        if event is None or not event.ingested:
            balance.differ("event_unknown_row", text, "it has a row, but is not in events.ingested")
        elif rows[event.number]:
            balance.differ("event_doubled_row", text, "it has more than one row")
        else:
            rows[event.number] = 1
    for key, event in books.events.items():
        if event.ingested and not rows[event.number]:
            balance.differ("event_missing_row", name_of(key), "it is in events.ingested, but has no row")

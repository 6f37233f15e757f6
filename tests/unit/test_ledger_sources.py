"""The sources against events.raw: each row and message there once, and nothing that no source has."""

from __future__ import annotations

import json
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

import pytest

from pipelined.ledger.balance import Balance
from pipelined.ledger.books import Books, Record
from pipelined.ledger.content import Item, item_of_event, items_of_message
from pipelined.ledger.evidence import AttachmentRow, FoundFile, Origin
from pipelined.ledger.identity import Key, parse
from pipelined.ledger.judging import judge_books
from pipelined.ledger.report import render

TABLE, HUB = "eventhouse", "eventhub"


def trace(number: int) -> str:
    return str(uuid.UUID(int=number + 1))


def event(number: int, **changed: Any) -> dict[str, Any]:
    return {
        "type": "a.noteAdded",
        "version": 1,
        "utcDateTime": "2026-01-05T14:22:31.48Z",
        "traceId": trace(number),
        "data": {"note": "ü", "n": 1.5},
    } | changed


class FakeSource:
    """A source in memory: what it holds, and what it is allowed to do."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.held: list[Item] = []
        self.since: list[Item] = []
        self.begins_anywhere = self.forgets = False

    @property
    def before(self) -> Counter[Item]:
        return Counter(self.held)

    def items(self) -> Iterable[Item]:
        return [*self.held, *self.since]


class World:
    """A pipeline that takes from its sources what the test says, and does all else right."""

    def __init__(self) -> None:
        self.sources = {name: FakeSource(name) for name in (TABLE, HUB)}
        self.raw: list[tuple[bytes, dict[str, str]]] = []

    def row(self, told: dict[str, Any]) -> None:
        self.sources[TABLE].held.append(item_of_event(told))

    def message(self, value: bytes) -> None:
        self.sources[HUB].held += items_of_message(value)

    def take(self, source: str, told: dict[str, Any] | bytes, **headers: str) -> None:
        value = told if isinstance(told, bytes) else json.dumps(told).encode()
        self.raw.append((value, {"source": source} | headers))

    def judge(self) -> Balance:
        books = Books("xact.events.raw", "xact.downloads.results", self.sources)
        self.rows: list[str] = []
        for offset, (value, headers) in enumerate(self.raw):
            books.add(Record("events_raw", 0, offset, value, headers))
            found = (parse(value) or {}).get("traceId")
            if not found:
                place = {"topic": "xact.events.raw", "partition": "0", "offset": str(offset)}
                dead = {f"dlq_origin_{name}": text for name, text in place.items()}
                books.add(Record("events_dlq", 0, offset, value, dead))
            elif found.lower() not in self.rows:
                books.add(Record("events_ingested", 0, offset, value, {}))
                self.rows.append(found.lower())
        return judge_books(books, self, self.sources.values())

    def event_rows(self) -> Iterable[str] | None:
        return self.rows

    def attachment_rows(self) -> Iterable[AttachmentRow] | None:
        return []

    def failed_rows(self) -> Iterable[str] | None:
        return []

    def paths(self) -> Iterable[str]:
        return []

    def read(self, paths: Iterable[str]) -> Iterator[FoundFile]:
        return iter(())

    def value_at(self, origin: Origin) -> bytes | None:
        return None

    def replays(self, keys: Collection[Key]) -> Mapping[Key, int]:
        return {}


@pytest.fixture
def world() -> World:
    """Rows 0, 1, 2, one of them twice, and one without an id; messages 1, 2, 3, and a line that is none."""
    world = World()
    for told in (event(0), event(1), event(2), event(2), event(9, traceId="")):
        world.row(told)
        world.take(TABLE, told)
    for number in (1, 2, 3):
        value = json.dumps(event(number)).encode()
        world.message(value)
        world.take(HUB, value)
    world.message(b"no event")
    world.take(HUB, b"no event")
    return world


def test_what_each_source_holds_is_on_events_raw_once_and_the_ids_of_both_are_told_apart(
    world: World,
) -> None:
    balance = world.judge()
    assert balance.balanced, balance.as_json()
    table, hub = balance.sources[TABLE], balance.sources[HUB]
    assert (table.held, table.taken, table.ids, table.only_here) == (5, 5, 3, 1)
    assert (hub.held, hub.taken, hub.ids, hub.only_here) == (4, 4, 3, 1)
    assert (balance.read, balance.rows, balance.duplicate, balance.dead) == (9, 4, 3, 2)


def lost_row(world: World) -> None:
    world.row(event(7))


def lost_second_copy(world: World) -> None:
    world.row(event(2))


def lost_message(world: World) -> None:
    world.message(b"nobody took it")


def doubled_row(world: World) -> None:
    world.take(TABLE, event(1))


def doubled_message(world: World) -> None:
    world.take(HUB, b"no event")


def foreign_row(world: World) -> None:
    world.take(TABLE, event(8))


def foreign_message(world: World) -> None:
    world.take(HUB, json.dumps(event(1), indent=1).encode())


def altered_row(world: World) -> None:
    world.row(event(7))
    world.take(TABLE, event(7, data={"note": "another one"}))


@pytest.mark.parametrize(
    ("harm", "kind", "about"),
    [
        (lost_row, "source_missing", trace(7)),
        (lost_second_copy, "source_missing", trace(2)),
        (lost_message, "source_missing", "a message without an id"),
        (doubled_row, "source_doubled", trace(1)),
        (doubled_message, "source_doubled", "a message without an id"),
        (foreign_row, "source_unknown", trace(8)),
        (foreign_message, "source_unknown", trace(1)),
        (altered_row, "source_altered", trace(7)),
    ],
)
def test_a_lost_a_doubled_a_foreign_and_an_altered_one_are_each_found_and_named(
    world: World, harm: Callable[[World], None], kind: str, about: str
) -> None:
    harm(world)
    balance = world.judge()
    assert balance.difference_kinds == {kind: 1}
    assert balance.differences[0].id == about
    text = render(balance)
    marked = [line for line in text.splitlines() if line.endswith("✗")]
    assert len(marked) == 1, text
    assert ("Event Hub messages" if "message" in harm.__name__ else "Eventhouse rows") in marked[0]


def test_how_a_row_is_written_makes_no_difference(world: World) -> None:
    world.row(event(5, version=None, data='{"n": 1.50, "note": "\\u00fc"}', traceId=trace(5).upper()))
    changed = event(5, version="", utcDateTime="2026-01-05 14:22:31.4800000+00:00")
    world.take(TABLE, dict(reversed(changed.items())))
    assert world.judge().balanced


def test_the_events_of_an_array_are_each_held_against_what_became_of_them(world: World) -> None:
    world.message(b"\xef\xbb\xbf" + json.dumps([event(5), event(6)], indent=1).encode())
    world.take(HUB, event(5), origin_item="0")
    assert world.judge().difference_kinds == {"source_missing": 1}
    world.take(HUB, dict(reversed(event(6).items())), origin_item="1")
    for odd in (b"[]", b"[1]", b'[{"traceId":"a"}, 2]', b"[{"):
        world.message(odd)
        world.take(HUB, odd)
    assert world.judge().balanced


def test_a_byte_order_mark_may_go(world: World) -> None:
    world.message(b"\xef\xbb\xbf" + json.dumps(event(5)).encode())
    world.take(HUB, event(5))
    assert world.judge().balanced


def test_rows_that_came_while_the_ledger_read_are_neither_missing_nor_unknown(world: World) -> None:
    world.sources[TABLE].since += [item_of_event(event(5)), item_of_event(event(6))]
    world.take(TABLE, event(5))
    assert world.judge().balanced


def test_what_a_back_fill_brings_again_is_told_and_is_no_difference_but_what_it_invents_is(
    world: World,
) -> None:
    world.take(TABLE, event(1), backfill="a..b")
    balance = world.judge()
    assert balance.balanced
    assert balance.sources[TABLE].refilled == 1
    assert "a back-fill brought 1 rows of the Eventhouse" in balance.notes[0]
    world.take(TABLE, event(1))
    assert world.judge().difference_kinds == {"source_doubled": 1}
    world.take(TABLE, event(8), backfill="a..b")
    assert world.judge().difference_kinds == {"source_doubled": 1, "source_unknown": 1}


def test_where_reading_did_not_begin_at_the_beginning_what_is_missing_is_only_told(world: World) -> None:
    world.sources[HUB].begins_anywhere = True
    lost_message(world)
    balance = world.judge()
    assert balance.balanced
    assert balance.sources[HUB].missing == 1
    assert "1 messages are not on events.raw" in balance.notes[0]


def test_what_the_hub_has_deleted_already_cannot_be_held_against_it(world: World) -> None:
    world.sources[HUB].forgets = True
    foreign_message(world)
    balance = world.judge()
    assert balance.balanced
    assert "1 records on events.raw cannot be held against it" in balance.notes[0]


def test_what_was_loaded_from_a_file_is_not_judged_and_a_source_nobody_configured_is_told(
    world: World,
) -> None:
    world.take("local", event(20))
    world.take("elsewhere", event(21))
    balance = world.judge()
    assert balance.balanced
    assert balance.notes == [
        '1 records on events.raw say they are of the source "elsewhere": there is nothing to judge them by'
    ]


def test_the_report_says_it_in_words(world: World) -> None:
    lines = [" ".join(line.split()) for line in render(world.judge()).splitlines()]
    assert lines[:3] == [
        "Eventhouse rows 5 = 5 on events.raw, each once ✓",
        "Event Hub messages 4 = 4 on events.raw, each once ✓",
        "event ids 4 = 2 by both + 1 by the Eventhouse only + 1 by the Event Hub only ✓",
    ]


def test_the_json_object_has_the_sums_of_each_source(world: World) -> None:
    doubled_row(world)
    found = world.judge().as_json()["sources"]
    assert found[TABLE] == {
        "held": 5,
        "taken": 6,
        "missing": 0,
        "doubled": 1,
        "unknown": 0,
        "altered": 0,
        "refilled": 0,
        "ids": 3,
        "only_here": 1,
        "differences": 1,
    }
    assert found[HUB]["held"] == 4

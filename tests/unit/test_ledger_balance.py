"""The balance as a pure function: a small pipeline that adds up, and what is found when it does not."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from ledger_world import RAW, RESULTS, World, identity, origin_of, trace, url
from pipelined.ledger.balance import LISTED, Balance
from pipelined.ledger.evidence import AttachmentRow, Origin
from pipelined.ledger.identity import key_of
from pipelined.ledger.judging import judge_books
from pipelined.ledger.report import render


@pytest.fixture
def world() -> World:
    """4 events, one of them twice, one dead; 3 attachments, one failed; raw offsets 0, 1, 2, 3 and 4."""
    world = World()
    world.accept(0)
    world.accept(1, files=2)
    world.put("events_raw", {"traceId": trace(1).upper(), "data": None})
    world.put("events_raw", b"{not json")
    world.bury(b"{not json", 3)
    world.accept(2, files=1)
    world.accept(3, partition=1)
    world.complete(1, 0)
    world.fail(1, 1)
    world.complete(2, 0)
    return world


def kinds(balance: Balance) -> dict[str, str]:
    return {found.kind: found.id for found in balance.differences}


def test_a_pipeline_that_lost_and_doubled_nothing_balances(world: World) -> None:
    balance = world.judge()
    assert balance.balanced, balance.differences
    assert (balance.read, balance.accepted, balance.duplicate, balance.dead, balance.rows) == (6, 4, 1, 1, 4)
    assert (balance.expected, balance.completed, balance.failed) == (3, 2, 1)
    assert (balance.files_checked, balance.file_bytes, balance.dead_letters) == (2, 24, 2)


def test_an_empty_pipeline_balances_even_without_tables() -> None:
    world = World()
    world.events = world.attachments = world.failures = None
    assert world.judge().balanced


def test_the_topics_may_be_read_in_any_order(world: World) -> None:
    orders = [
        ["events_dlq", "downloads_dlq", "downloads_results", "events_ingested", "events_raw"],
        ["events_raw", "events_dlq", "events_ingested", "downloads_results", "downloads_dlq"],
        ["events_ingested", "events_raw", "events_dlq", "downloads_dlq", "downloads_results"],
    ]
    for order in orders:
        books = world.books(order)
        assert judge_books(books, world).balanced
        assert (books.unaccounted, books.ingested, books.claimed, books.finished) == (0, 4, 3, 3)


def test_judging_twice_gives_the_same(world: World) -> None:
    books = world.books()
    assert judge_books(books, world) == judge_books(books, world)


Damage = Callable[[World], Any]


def rows(world: World) -> list[AttachmentRow]:
    assert world.attachments is not None
    return world.attachments


def texts(table: list[str] | None) -> list[str]:
    assert table is not None
    return table


def misplace(world: World, number: int) -> None:
    world.put("events_raw", {"traceId": trace(number)})
    world.put("events_ingested", {"traceId": trace(number)}, partition=1)
    texts(world.events).append(trace(number))


DAMAGES: list[tuple[str, str, Damage]] = [
    # What is wrong, in the words of the balance; the id it must name; how to make it so.
    ("event_lost", f"{RAW}/0/5", lambda w: w.put("events_raw", b"also not json")),
    ("event_lost", trace(9), lambda w: w.put("events_raw", {"traceId": trace(9)})),
    ("event_lost", "no-uuid", lambda w: w.put("events_raw", {"traceId": "no-uuid"})),
    ("event_lost", "17", lambda w: w.put("events_raw", {"traceId": 17})),
    ("event_doubled", trace(0), lambda w: w.put("events_ingested", {"traceId": trace(0)})),
    ("event_unknown", trace(9), lambda w: w.put("events_ingested", {"traceId": trace(9)})),
    ("event_unreadable", "events.ingested/0/3", lambda w: w.put("events_ingested", b"?")),
    ("event_misplaced", trace(9), lambda w: misplace(w, 9)),
    ("event_missing_row", trace(2), lambda w: texts(w.events).remove(trace(2))),
    ("event_doubled_row", trace(2), lambda w: texts(w.events).append(trace(2))),
    ("event_unknown_row", trace(9), lambda w: texts(w.events).append(trace(9))),
    ("table_missing", "events", lambda w: setattr(w, "events", None)),
    ("dead_letter_doubled", f"{RAW}/0/3", lambda w: w.bury(b"{not json", 3)),
    ("dead_letter_unknown", f"{RAW}/0/77", lambda w: w.bury(b"{not json", 77)),
    ("dead_letter_unknown", "events.dlq/0/1", lambda w: w.put("events_dlq", b"no headers")),
    (
        "dead_letter_differs",
        f"{RAW}/0/5",
        lambda w: w.bury(b"something else", w.put("events_raw", b"the original")),
    ),
    ("attachment_missing", identity(2), lambda w: rows(w).pop()),
    ("attachment_doubled", identity(2), lambda w: rows(w).append(rows(w)[-1])),
    ("attachment_unknown", "x", lambda w: rows(w).append(AttachmentRow(trace(0), "x", "failed", "p"))),
    (
        "attachment_unknown",
        identity(2),
        lambda w: rows(w).append(rows(w).pop()._replace(trace_id=trace(0))),
    ),
    (
        "attachment_unfinished",
        identity(1, 1),
        lambda w: rows(w).__setitem__(1, rows(w)[1]._replace(status="running")),
    ),
    ("table_missing", "attachments", lambda w: setattr(w, "attachments", None)),
    ("result_missing", identity(2), lambda w: w.topics["downloads_results"][0].pop()),
    ("result_doubled", identity(2), lambda w: w.result(2, 0, "completed")),
    ("result_differs", identity(2), lambda w: w.result(2, 0, "failed")),
    ("result_unknown", identity(9), lambda w: w.result(9, 0, "completed")),
    ("result_unreadable", "downloads.results/0/3", lambda w: w.put("downloads_results", b"?")),
    ("failed_row_missing", identity(1, 1), lambda w: texts(w.failures).clear()),
    ("failed_row_missing", identity(1, 1), lambda w: setattr(w, "failures", None)),
    ("failed_row_doubled", identity(1, 1), lambda w: texts(w.failures).append(identity(1, 1))),
    ("failed_row_unknown", identity(9), lambda w: texts(w.failures).append(identity(9))),
    ("dead_letter_missing", identity(1, 1), lambda w: w.topics["downloads_dlq"][0].clear()),
    (
        "dead_letter_doubled",
        identity(1, 1),
        lambda w: w.put("downloads_dlq", {"attachment_id": identity(1, 1)}),
    ),
    ("dead_letter_unknown", identity(2), lambda w: w.put("downloads_dlq", {"attachment_id": identity(2)})),
    ("dead_letter_unknown", "downloads.dlq/0/1", lambda w: w.put("downloads_dlq", b"?")),
    ("file_missing", identity(2), lambda w: w.files.pop(f"docs/{trace(2)}/0.pdf")),
    ("file_differs", identity(2), lambda w: w.files.update({f"docs/{trace(2)}/0.pdf": b"content of 3"})),
    ("file_differs", identity(2), lambda w: w.files.update({f"docs/{trace(2)}/0.pdf": b""})),
    ("file_unknown", "docs/left.pdf", lambda w: w.files.update({"docs/left.pdf": b""})),
    (
        "file_shared",
        identity(2),
        lambda w: rows(w).append(rows(w).pop()._replace(blob_path=rows(w)[0].blob_path)),
    ),
]


@pytest.mark.parametrize(("kind", "about", "damage"), DAMAGES)
def test_each_kind_of_difference_is_found_and_names_the_id(
    world: World, kind: str, about: str, damage: Damage
) -> None:
    damage(world)
    balance = world.judge()
    assert not balance.balanced
    assert (kind, about) in {(found.kind, found.id) for found in balance.differences}, balance.differences


def test_a_dead_event_may_carry_the_trace_id_of_an_accepted_one(world: World) -> None:
    value = json.dumps({"traceId": trace(0), "data": {"attachments": [url(0)]}}).encode()
    world.bury(value, world.put("events_raw", value))
    balance = world.judge()
    assert balance.balanced, balance.differences
    assert (balance.dead, balance.duplicate, balance.expected) == (2, 1, 3)


def test_the_attachments_expected_are_those_of_the_record_that_was_accepted(world: World) -> None:
    unassigned = json.dumps({"traceId": trace(7), "data": {"attachments": [url(7, 5)]}}).encode()
    world.bury(unassigned, world.put("events_raw", unassigned))
    world.accept(7, files=1)
    world.put("events_raw", {"traceId": trace(7), "data": {"attachments": [url(7, 6)]}})
    world.complete(7)
    balance = world.judge()
    assert balance.balanced, balance.differences
    assert balance.expected == 4


def test_an_attachment_listed_and_signed_twice_is_expected_once(world: World) -> None:
    assert world.events is not None
    signed_again = url(5).replace("=s5", "=another")
    event = {"traceId": trace(5), "data": {"attachments": [url(5), signed_again, url(5)]}}
    world.put("events_raw", event)
    world.put("events_ingested", event)
    world.events.append(trace(5))
    world.complete(5)
    balance = world.judge()
    assert balance.balanced, balance.differences
    assert balance.expected == 4


def test_a_failure_that_was_replayed_and_succeeded_balances_only_because_of_the_replay(world: World) -> None:
    rows(world).pop(1)
    world.complete(1, 1)
    assert set(kinds(world.judge())) == {"result_doubled"}
    world.replayed[key_of(identity(1, 1))] = 1
    balance = world.judge()
    assert balance.balanced, balance.differences
    assert (balance.completed, balance.failed, balance.dead_letters) == (3, 0, 2)


def test_a_failure_that_was_replayed_and_failed_again_has_one_dead_letter_for_each_time(world: World) -> None:
    world.fail(1, 1)
    rows(world).pop()
    assert {"result_doubled", "dead_letter_doubled"} <= set(kinds(world.judge()))
    world.replayed[key_of(identity(1, 1))] = 1
    assert world.judge().balanced


def test_a_dead_letter_without_attachment_must_be_the_copy_of_a_record_and_counts(world: World) -> None:
    place = Origin("xact.downloads.pending", 2, 8)
    world.put("downloads_dlq", b"{broken", origin_of(*place))
    assert "dead_letter_unknown" in kinds(world.judge())
    world.pending[place] = b"{broken"
    balance = world.judge()
    assert balance.balanced, balance.differences
    assert balance.dead_letters == 3
    world.put("downloads_dlq", b"{broken", origin_of(*place))
    assert "dead_letter_doubled" in kinds(world.judge())


def test_an_unreadable_result_is_fine_once_it_is_a_dead_letter(world: World) -> None:
    place = Origin(RESULTS, 0, world.put("downloads_results", b"{broken"))
    world.pending[place] = b"{broken"
    world.put("downloads_dlq", b"{broken", origin_of(*place))
    assert world.judge().balanced


def test_a_dead_letter_is_known_by_its_header_where_its_bytes_tell_nothing(world: World) -> None:
    world.topics["downloads_dlq"][0][0] = (b"\xff", {"attachment_id": identity(1, 1)})
    assert world.judge().balanced


def test_all_differences_are_counted_and_the_first_are_listed(world: World) -> None:
    for number in range(100, 150):
        world.put("events_raw", {"traceId": trace(number)})
    balance = world.judge()
    assert balance.difference_count == 50
    assert balance.difference_kinds == {"event_lost": 50}
    assert [found.id for found in balance.differences] == [trace(100 + i) for i in range(LISTED)]


def test_the_json_object_has_the_keys_that_scripts_rely_on(world: World) -> None:
    world.files["docs/left.pdf"] = b""
    found = json.loads(json.dumps(world.judge().as_json()))
    assert found["balanced"] is False
    assert found["events"] == {"read": 6, "accepted": 4, "duplicate": 1, "dead": 1, "rows": 4}
    assert found["attachments"] == {"expected": 3, "completed": 2, "failed": 1}
    assert found["files"] == {"checked": 2, "bytes": 24}
    assert found["dead_letters"] == 2
    (difference,) = found["differences"]
    assert (difference["kind"], difference["id"]) == ("file_unknown", "docs/left.pdf")


def test_the_report_says_in_words_what_adds_up(world: World) -> None:
    text = render(world.judge())
    assert "source events  6  = 4 rows + 1 duplicates + 1 dead" in text
    assert text.count("✓") == 5
    assert "✗" not in text


def test_the_report_marks_the_sum_that_differs_and_lists_the_ids(world: World) -> None:
    texts(world.events).append(trace(9))
    text = render(world.judge())
    marks = {line.split("  ")[1]: line[-1] for line in text.splitlines()[:4]}
    assert marks == {"source events": "✗", "attachments": "✓", "files": "✓", "dead letters": "✓"}
    assert f"event_unknown_row  {trace(9)}: " in text


def test_the_report_can_do_with_ascii_alone(world: World) -> None:
    texts(world.events).append("trace-ü")
    text = render(world.judge(), unicode=False)
    assert text.isascii()
    assert "trace-\\xfc" in text

"""Pages, windows and cursors of the local Eventhouse, as the unmodified client of Microsoft sees them."""

from __future__ import annotations

import io
import json
import threading
import time
from typing import Any

import pytest
from azure.kusto.data.exceptions import KustoApiError
from kustoasking import Asking, events

import kustoqueries as kql
from pipelined.local.eventhouse import Eventhouse

LONG_AGO, FAR = "datetime(2001-01-01)", "datetime(2201-01-01)"


def window(ask: Asking, after: str, until: str, rows: int = 7) -> list[list[Any]]:
    """Every row between two cursors, page by page, as a poller reads them."""
    page = ask.rows(kql.first_page(rows), {"c0": after, "c1": until})
    found = list(page)
    while len(page) == rows:
        _, _, _, key, _, stamp = page[-1]
        parameters = {"c0": after, "c1": until, "t": f"datetime({stamp})", "k": key}
        page = ask.rows(kql.next_page(rows), parameters)
        found += page
    return found


def test_an_empty_table_answers_with_its_columns_and_no_rows(ask: Asking) -> None:
    answer = ask.answer(kql.TABLE)
    (table,) = answer.primary_results
    assert {column.column_name: column.column_type for column in table.columns} == kql.COLUMNS
    assert table.raw_rows == []
    assert answer.errors_count == 0


@pytest.mark.parametrize("name", kql.QUERIES)
def test_every_query_of_the_poller_runs(house: Eventhouse, ask: Asking, name: str) -> None:
    house.ingest(kql.TABLE, events(3))
    known: dict[str, Any] = {
        "c0": "",
        "c1": ask.cursor(),
        "t": LONG_AGO,
        "k": "",
        "f": LONG_AGO,
        "u": FAR,
        "prefix": "claims.",
    }
    wanted = {key: value for key, value in known.items() if f"{key}:" in kql.QUERIES[name]}
    rows = ask.rows(kql.QUERIES[name], wanted)
    expected = {"waiting": 1, "extent": 3, "unstamped": 0}
    if "page" in name:
        assert len(rows) == 3
    else:
        assert rows[0][0] == expected.get(name, rows[0][0])
        assert rows[0][0] != ""


def test_pages_by_ingestion_time_and_id_read_each_row_once(house: Eventhouse, ask: Asking) -> None:
    # Two thousand rows of one ingestion time, and some more.
    put = events(2000)
    house.ingest(kql.TABLE, put[:1500], ingested=1_767_622_951_123_456_700)
    house.ingest(kql.TABLE, put[1500:], ingested=1_767_622_951_123_456_800)
    read = window(ask, "", ask.cursor(), rows=333)
    assert len(read) == 2000
    assert {row[3] for row in read} == {event["traceId"] for event in put}
    assert [row[5] for row in read] == ["2026-01-05T14:22:31.1234567Z"] * 1500 + [
        "2026-01-05T14:22:31.1234568Z"
    ] * 500


def test_pages_by_time_read_each_row_once(house: Eventhouse, ask: Asking) -> None:
    for start in range(3):
        house.ingest(kql.TABLE, events(40), ingested=(1_767_622_951 + start) * 10**9)
    page, found = [["", 0, "", "", {}, "2001-01-01"]], []
    parameters = {"f": "datetime(2026-01-05T14:22:31Z)", "u": "datetime(2026-01-05T14:22:33Z)"}
    while page:
        key = {"t": f"datetime({page[-1][5]})", "k": page[-1][3]}
        page = ask.rows(kql.page_by_time(17), {**parameters, **key})
        found += page
    assert len(found) == len({row[3] for row in found}) == 80


def test_a_window_of_cursors_holds_what_came_in_between(house: Eventhouse, ask: Asking) -> None:
    house.ingest(kql.TABLE, events(5))
    first = ask.cursor()
    put = events(20)
    house.ingest(kql.TABLE, put)
    second = ask.cursor()
    house.ingest(kql.TABLE, events(5))
    assert int(first) < int(second) < int(ask.cursor())
    assert {row[3] for row in window(ask, first, second)} == {event["traceId"] for event in put}
    assert len(window(ask, "", ask.cursor())) == 30
    assert window(ask, ask.cursor(), ask.cursor()) == []


def test_the_cursor_stands_still_while_nothing_comes(house: Eventhouse, ask: Asking) -> None:
    house.ingest(kql.TABLE, events(1))
    assert ask.cursor() == ask.cursor()
    house.change_settings(cursor_always_moves=True)
    assert ask.cursor() != ask.cursor()


def test_rows_may_be_visible_before_they_have_a_cursor(house: Eventhouse, ask: Asking) -> None:
    start = ask.cursor()
    (batch,) = house.ingest(kql.TABLE, events(4), cursor_lag=None)
    house.ingest(kql.TABLE, events(3))
    early = ask.cursor()
    assert ask.rows(f"{kql.TABLE} | count") == [[7]]
    assert len(window(ask, start, early)) == 3
    house.seal(batch)
    assert len(window(ask, early, ask.cursor())) == 4


def test_rows_may_become_visible_after_later_ones(house: Eventhouse, ask: Asking) -> None:
    (late,) = house.ingest(kql.TABLE, events(4, type="late"), delay=None)
    house.ingest(kql.TABLE, events(3, type="early"))
    seen = ask.cursor()
    newest = ask.rows(kql.NEWEST)[0][0]
    assert ask.rows(f"{kql.TABLE} | count") == [[3]]
    house.reveal(late)
    rows = window(ask, seen, ask.cursor())
    assert [row[0] for row in rows] == ["late"] * 4
    assert all(row[5] < newest for row in rows), "a watermark of ingestion times would have lost them"


def test_a_delay_and_a_lag_end_by_themselves(house: Eventhouse, ask: Asking) -> None:
    start = ask.cursor()
    begun = time.monotonic()
    house.ingest(kql.TABLE, events(4), delay=0.3, cursor_lag=0.3)
    while not (read := window(ask, start, ask.cursor())):
        assert time.monotonic() < begun + 30
    assert time.monotonic() >= begun + 0.6
    assert len(read) == 4


def test_a_poller_misses_nothing_while_rows_come(house: Eventhouse, ask: Asking) -> None:
    put = [events(7) for _ in range(30)]

    def ingest(share: int) -> None:
        for number in range(share, 30, 3):
            house.ingest(kql.TABLE, put[number], cursor_lag=0.01 if number % 2 else 0.0)

    writers = [threading.Thread(target=ingest, args=(share,)) for share in range(3)]
    for writer in writers:
        writer.start()
    read: list[str] = []
    at, deadline = "", time.monotonic() + 60
    while len(read) < 210 and time.monotonic() < deadline:
        until = ask.cursor()
        read += [row[3] for row in window(ask, at, until, rows=11)]
        at = until
    for writer in writers:
        writer.join()
    assert sorted(read) == sorted(event["traceId"] for batch in put for event in batch)


def test_rows_of_streaming_ingestion_come_by_the_client_and_lag(house: Eventhouse, ask: Asking) -> None:
    house.change_settings(streaming_cursor_lag_s=None)
    start = ask.cursor()
    body = "\n".join(map(json.dumps, events(6)))
    ask.client.execute_streaming_ingest("events", kql.TABLE, io.BytesIO(_gzipped(body)), None, "json")
    assert ask.rows(f"{kql.TABLE} | count") == [[6]]
    assert window(ask, start, ask.cursor()) == []
    house.seal()
    assert len(window(ask, start, ask.cursor())) == 6


def _gzipped(text: str) -> bytes:
    import gzip

    return gzip.compress(text.encode())


def test_a_table_without_the_policy_has_neither_stamps_nor_cursors(house: Eventhouse, ask: Asking) -> None:
    house.command(f".alter table {kql.TABLE} policy ingestiontime false")
    house.ingest(kql.TABLE, events(3))
    assert ask.rows(kql.UNSTAMPED) == [[3]]
    assert window(ask, "", ask.cursor()) == []


def test_cursors_may_not_be_had(house: Eventhouse, ask: Asking) -> None:
    house.change_settings(cursors="empty")
    assert ask.cursor() == ""
    house.change_settings(cursors="off")
    with pytest.raises(KustoApiError, match="Unknown function: 'cursor_current'") as refused:
        ask.cursor()
    assert refused.value.is_semantic_error()


def test_a_cursor_that_is_none_is_refused(house: Eventhouse, ask: Asking) -> None:
    house.ingest(kql.TABLE, events(1))
    with pytest.raises(KustoApiError):
        ask.rows(kql.first_page(5), {"c0": "somewhere", "c1": ask.cursor()})


def test_a_database_made_again_does_not_know_the_cursors_of_before(house: Eventhouse, ask: Asking) -> None:
    house.ingest(kql.TABLE, events(3))
    kept = ask.cursor()
    house.restart_cursors()
    house.ingest(kql.TABLE, events(2))
    assert int(ask.cursor()) < int(kept)
    assert window(ask, kept, ask.cursor()) == []
    assert len(window(ask, "", ask.cursor())) == 5

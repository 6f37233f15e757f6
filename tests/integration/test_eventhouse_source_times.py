"""Where the database has no cursors: by ingestion time, with late rows looked for within the overlap."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator

import pytest

from eventhouse_table import REAL_URL, Poller, Table, events, lent, polling
from pipelined.errors import ConfigError
from pipelined.local.eventhouse import Eventhouse
from pipelined.sources.eventhouse import times
from pipelined.sources.eventhouse.position import Position

pytestmark = pytest.mark.skipif(bool(REAL_URL), reason="a real cluster has cursors")


@pytest.fixture(scope="module", params=["off", "empty"])
def house(request: pytest.FixtureRequest) -> Iterator[Eventhouse]:
    with Eventhouse(cursors=request.param) as server:
        yield server


@pytest.fixture
def table(house: Eventhouse) -> Iterator[Table]:
    with lent(house) as table:
        yield table


@pytest.fixture
def poller(table: Table) -> Iterator[Poller]:
    with polling(table) as poller:
        yield poller


def now() -> int:
    return time.time_ns() // 100 * 100


def test_the_table_is_read_whole_and_status_says_how(
    table: Table, poller: Poller, caplog: pytest.LogCaptureFixture
) -> None:
    table.ingest(events(350))
    with caplog.at_level(logging.WARNING, "pipelined.sources"):
        poller.judge()
    assert "the database has no cursors" in caplog.text
    assert "by ingestion time" in poller.source.facts().fallback


def test_a_poll_that_finds_nothing_is_one_query_here_too(table: Table, poller: Poller) -> None:
    table.ingest(events(50))
    poller.judge()
    poller.source.facts()
    assert poller.step() is None
    assert len(poller.source.facts().queries) == 1
    probe = poller.source.probe()
    assert probe.waiting is False
    assert probe.now
    table.ingest(events(1))
    assert poller.source.probe().waiting is True


def test_rows_that_come_late_within_the_overlap_are_sent_once(table: Table, poller: Poller) -> None:
    stamp = now()
    for number in range(4):
        table.ingest(events(60), ingested=stamp + number * 10**9)
        poller.drain()
        table.ingest(events(45), ingested=stamp + number * 10**9)  # with rows of that very time
        table.ingest(events(30), ingested=stamp - (number + 1) * 7 * 10**9)
        if number % 2:
            poller.again()
        poller.drain()
        poller.judge()
    assert len(poller.outputs) == 540


def test_late_rows_are_sent_once_though_the_process_dies_at_every_page(table: Table) -> None:
    stamp = now()
    table.ingest(events(90), ingested=stamp)
    table.ingest(events(40), ingested=stamp + 10**9)
    with polling(table, page_rows=20) as poller:
        poller.drain()
        for _ in range(3):
            table.ingest([*events(35), *events(12, traceId=None)], ingested=stamp)
        while poller.step():
            poller.source.fetch(1.0)  # and is not committed
            poller.again()
        poller.judge()


@pytest.mark.parametrize("size", [2, 12, 500])
def test_ids_that_are_not_unique_lose_no_row_here_either(table: Table, size: int) -> None:
    stamp = now()
    same = events(1, traceId=None)[0]
    rows = [*[same] * 7, *events(5, traceId=None), *events(8)]
    table.ingest(rows, ingested=stamp)
    with polling(table, page_rows=size) as poller:
        poller.drain()
        table.ingest(rows, ingested=stamp)
        poller.again()
        poller.judge()
        table.ingest(rows, ingested=stamp + 100)
        while poller.step():
            poller.again()
        poller.judge()
        assert len(poller.outputs) == 60


def test_what_lies_before_the_overlap_needs_no_memory(table: Table) -> None:
    table.ingest(events(300), ingested=now() - 3600 * 10**9)
    table.ingest(events(40))
    with polling(table, overlap_seconds=60.0) as poller:
        poller.judge()
        watermark = Position.read(poller.position or b"", "").watermark
        assert watermark
        assert sum(len(text) for text in watermark.seen.values()) < 40 * 12
        table.ingest(events(5), ingested=now() - 1800 * 10**9)  # later than the overlap
        assert poller.drain() == 0


def test_more_than_can_be_remembered_waits_for_the_overlap_to_move_on(
    house: Eventhouse, table: Table, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(times, "MOST_SEEN", 150)
    table.ingest(events(700))
    with polling(table) as poller:
        with caplog.at_level(logging.WARNING, "pipelined.sources"):
            poller.drain()
        assert 150 <= len(poller.outputs) < 300
        assert "more than 150 rows" in caplog.text
        assert "wait" in poller.source.facts().fallback
        table.ingest(events(50))
        house.change_settings(clock_offset_s=1000.0)
        try:
            poller.judge()
            assert "wait" not in poller.source.facts().fallback
        finally:
            house.change_settings(clock_offset_s=0.0)


@pytest.mark.parametrize("start", ["now", "2026-01-05T14:22:31.1234568Z"])
def test_it_begins_where_it_is_told(table: Table, start: str) -> None:
    stamp = 1_767_622_951_123_456_700
    table.ingest(events(30), ingested=stamp)
    table.ingest(events(20), ingested=stamp + 100)
    with polling(table, start=start) as poller:
        poller.drain()
        assert len(poller.outputs) == (0 if start == "now" else 20)
        poller.again()
        before = len(poller.outputs)
        table.ingest(events(12))
        assert poller.drain() == 12
        assert len(poller.outputs) == before + 12


def test_cursors_that_are_gone_are_an_operators_decision(house: Eventhouse, table: Table) -> None:
    without = house.change_settings()["cursors"]
    house.change_settings(cursors="on")
    table.ingest(events(20))
    with polling(table) as poller:
        poller.judge()
        house.change_settings(cursors=without)
        with pytest.raises(ConfigError, match=r"no cursors any more.*sources reset"):
            poller.step()
        poller.position = poller.source.begin_at("now")
        poller.again()
        table.ingest(events(7))
        assert poller.drain() == 7


def test_a_table_that_was_emptied_is_an_operators_decision(table: Table, poller: Poller) -> None:
    table.ingest(events(20))
    poller.judge()
    table.drop()
    table.create()
    with pytest.raises(ConfigError, match=r"made anew.*sources reset"):
        poller.step()


def test_rows_that_vanished_hide_no_late_ones(table: Table, poller: Poller) -> None:
    stamp = now()
    table.ingest([*events(60), *events(40, type="other")], ingested=stamp)
    assert poller.drain() == 100
    poller.again(filter="['type'] != 'other'")  # to a reader the same as if they had been purged
    table.ingest(events(25), ingested=stamp)
    assert poller.drain() == 25
    table.ingest(events(5), ingested=stamp)
    poller.again()
    assert poller.drain() == 5


def test_a_filter_counts_too(table: Table) -> None:
    table.ingest([*events(60, type="claims.a"), *events(60, type="other")])
    with polling(table, filter="['type'] == 'claims.a'", page_rows=25) as poller:
        assert poller.drain() == 60
        poller.source.facts()
        assert poller.step() is None
        assert len(poller.source.facts().queries) == 1

"""A local Eventhouse and a local Event Hub, fed, and read by the ledger: they hold what they were given."""

from __future__ import annotations

import datetime as dt
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import realparts
from flow import event, trace_ids
from kafka_tools import declared, produce, small
from pipelined.config import Config, load
from pipelined.errors import UnavailableError
from pipelined.ledger import judge
from pipelined.ledger.content import Item, item_of_event, items_of_message
from pipelined.ledger.eventhouse import EventhouseReader
from pipelined.ledger.eventhub import EventhubReader
from pipelined.local.feeds import feeds_of, share
from pipelined.local.generator import Day
from pipelined.local.hub_messages import HubWriter
from pipelined.local.table_rows import table_row
from pipelined.local.upstream import BOTH, EVENTHOUSE, EVENTHUB, TABLE, Upstream
from pipelined.stages.contract import Stream

pytestmark = pytest.mark.xdist_group("own-kafka")


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upstream]:
    realparts.require("the local Kafka", realparts.local_kafka_missing())
    with Upstream(tmp_path_factory.mktemp("upstream"), BOTH) as made:
        yield made


@pytest.fixture
def config(upstream: Upstream, tmp_path: Path) -> Config:
    file = tmp_path / "pipelined.toml"
    file.write_text(upstream.config)
    return load(file, environ={}).config


def key_of(item: Item) -> object:
    return item[0]


def test_both_are_fed_the_same_day_and_hold_exactly_their_share_of_it(config: Config, tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    day = Day(400, 3, "http://127.0.0.1:9", start=dt.datetime.now(dt.UTC))
    file.write_bytes(b"".join(line + b"\n" for line in day.lines()))
    feeds = feeds_of(BOTH, config, file, 3)
    began = time.monotonic()
    for feed in feeds:
        feed.start()
    for feed in feeds:
        feed.join(60)
        assert feed.error is None
    assert time.monotonic() - began > 2, "it is spread over a time in which it can be watched"

    table, hub = EventhouseReader(config), EventhubReader(config)
    try:
        rows = [row for row in map(table_row, share(file, 3, EVENTHOUSE)) if row is not None]
        assert table.catch_up() == len(rows)
        held = Counter(table.items())
        # A datetime column writes times anew, so the contents are those of the column, not of the line.
        assert Counter(map(key_of, held.elements())) == Counter(key_of(item_of_event(r)) for r in rows)
        messages = [item for value in share(file, 3, EVENTHUB) for item in items_of_message(value)]
        assert hub.catch_up() == len(messages)
        assert Counter(hub.items()) == Counter(messages)
        assert not any((table.begins_anywhere, hub.forgets, hub.begins_anywhere))
    finally:
        table.close()
        hub.close()


def test_the_ledger_reads_rows_of_one_time_and_rows_of_no_time(
    upstream: Upstream, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelined.ledger.eventhouse._SLICE_ROWS", 100)
    house = upstream.eventhouse
    assert house is not None
    house.command(f".clear table {TABLE} data")
    ids = list(trace_ids(520))
    rows = [row for row in (table_row(event(each)) for each in ids) if row is not None]
    house.ingest(TABLE, rows[:450])
    for row in rows[450:470]:
        house.ingest(TABLE, [row])
    house.command(f".alter table {TABLE} policy ingestiontime false")
    house.ingest(TABLE, rows[470:])
    house.command(f".alter table {TABLE} policy ingestiontime true")
    reader = EventhouseReader(config)
    try:
        assert reader.catch_up() == 520
        assert Counter(key_of(item) for item in reader.items()) == Counter(
            key_of(item_of_event(row)) for row in rows
        )
    finally:
        reader.close()


def test_what_no_worker_took_took_twice_or_invented_is_found_in_the_real_topics(
    upstream: Upstream, config: Config, kafka_bootstrap: str, domain: str
) -> None:
    house = upstream.eventhouse
    assert house is not None
    house.command(f".clear table {TABLE} data")
    lines = [event(trace) for trace in trace_ids(5)]
    house.ingest(TABLE, [row for row in map(table_row, lines[:3]) if row is not None])
    hub = EventhubReader(config)
    before = hub.catch_up()
    hub.close()
    HubWriter(config).put([lines[3], lines[3], b"[1]"])
    sourced = small(kafka_bootstrap, domain, eventhouse=config.eventhouse, eventhub=config.eventhub)
    with declared(sourced):
        rows, messages = ([("source", name)] for name in (b"eventhouse", b"eventhub"))
        produce(sourced, Stream.RAW, [lines[0], lines[1], lines[1], lines[4]], headers=rows)
        produce(sourced, Stream.RAW, [lines[3], lines[3]], headers=messages)
        balance = judge(sourced)
        found = {kind: n for kind, n in balance.difference_kinds.items() if kind.startswith("source_")}
        assert found.pop("source_missing") >= 2
        # The datetime column writes the time anew: it is another text, but the same content.
        assert found == {"source_doubled": 1, "source_unknown": 1}
        table, of_hub = balance.sources["eventhouse"], balance.sources["eventhub"]
        assert (table.held, table.taken, table.missing, table.doubled, table.unknown) == (3, 4, 1, 1, 1)
        assert (of_hub.held - of_hub.missing, of_hub.missing) == (2, before + 1)
        assert judge(sourced, sources=False).sources == {}


def test_a_passing_refusal_is_waited_for_and_an_answer_that_is_cut_is_none(
    upstream: Upstream, config: Config
) -> None:
    house = upstream.eventhouse
    assert house is not None
    reader = EventhouseReader(config)
    try:
        wanted = reader.catch_up()
        house.fault("throttled", times=1)
        assert reader.catch_up() == wanted
        for kind in ("error-in-rows", "error-at-end", "partial", "short", "login-page"):
            house.fault(kind)
            with pytest.raises(UnavailableError, match="does not answer the ledger"):
                reader.catch_up()
    finally:
        house.clear_faults()
        reader.close()


def test_a_hub_that_is_not_there_is_said_in_words(upstream: Upstream, tmp_path: Path) -> None:
    file = tmp_path / "other.toml"
    file.write_text(upstream.config.replace('topic = "claims"', 'topic = "other"'))
    other = load(file, environ={}).config
    with pytest.raises(UnavailableError, match=r"has no hub other; check eventhub\.topic"):
        EventhubReader(other)

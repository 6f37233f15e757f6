"""The Eventhouse as a source: what is in the table comes out, each row once, in every order of things."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator

import pytest

from eventhouse_table import COLUMNS, REAL_URL, Columns, Poller, Table, events, lent, polling, standing
from pipelined.errors import ConfigError
from pipelined.local.eventhouse import Eventhouse
from pipelined.sources.eventhouse.position import Position

local_only = pytest.mark.skipif(bool(REAL_URL), reason="a real cluster cannot be told when to show rows")
STAMP = 1_767_622_951_123_456_700


@pytest.fixture(scope="module")
def house() -> Iterator[Eventhouse | None]:
    with standing() as house:
        yield house


@pytest.fixture
def table(house: Eventhouse | None) -> Iterator[Table]:
    with lent(house) as table:
        yield table


@pytest.fixture
def poller(table: Table) -> Iterator[Poller]:
    with polling(table) as poller:
        yield poller


def test_every_row_comes_once_in_pages_of_the_configured_size(table: Table, poller: Poller) -> None:
    table.ingest(events(730))
    poller.judge()
    assert max(len(page.outputs) for page in poller.pages) <= 100
    assert len(poller.pages) >= 8


def test_an_event_is_carried_as_a_file_of_events_would_carry_it(table: Table, poller: Poller) -> None:
    trace_id = "6F0C2B1E-8D3A-4C52-9A77-0E5D1B7C4F21"
    table.ingest(events(1, traceId=trace_id, data={"a": {"b": [1, None, "é😀"]}, "n": 1.5}))
    poller.judge()
    (output,) = poller.outputs
    assert output.stream == "events_raw"
    assert output.key == trace_id.lower().encode()
    assert output.headers == [("source", b"eventhouse"), ("trace_id", output.key)]
    assert json.loads(output.value) == {
        "type": "claims.property.estimatePackageReceived",
        "version": 0,
        "utcDateTime": "2026-01-05T14:22:31.1234567Z",
        "traceId": trace_id.lower(),
        "data": {"a": {"b": [1, None, "é😀"]}, "n": 1.5},
    }


def test_a_poll_that_finds_nothing_is_one_query(table: Table, poller: Poller) -> None:
    table.ingest(events(3))
    poller.judge()
    poller.source.facts()
    assert poller.step() is None
    assert len(poller.source.facts().queries) == 1


def test_an_empty_table_is_quiet_and_then_it_is_not(table: Table, poller: Poller) -> None:
    assert poller.step() is None
    assert poller.source.probe().waiting is False
    table.ingest(events(5))
    poller.judge()
    assert len(poller.outputs) == 5
    assert poller.source.probe().waiting is False


@local_only
def test_the_probe_tells_waiting_from_quiet_and_the_services_time(table: Table, poller: Poller) -> None:
    assert table.local
    table.local.change_settings(clock_offset_s=600.0)
    table.ingest(events(2))
    poller.drain()
    quiet = poller.source.probe()
    table.ingest(events(1))
    waiting = poller.source.probe()
    assert (quiet.waiting, waiting.waiting) == (False, True)
    page = poller.step()
    # Ten minutes ahead of this machine, and it does not matter: one clock, the service's, is compared.
    assert page
    assert page.reached
    assert waiting.now
    assert 0 <= page.reached - waiting.now < 60


@local_only
@pytest.mark.parametrize("size", [2, 3, 7, 100, 5000])
def test_two_thousand_rows_of_one_ingestion_time_come_once_each(table: Table, size: int) -> None:
    count = 2000 if size > 50 else 60
    table.ingest(events(count), ingested=STAMP)
    table.ingest(events(5), ingested=STAMP + 100)
    with polling(table, page_rows=size) as poller:
        poller.judge()


@local_only
@pytest.mark.parametrize("size", [2, 12, 333])
def test_ids_that_are_not_unique_lose_no_row(table: Table, size: int) -> None:
    one, other = str(uuid.uuid4()), str(uuid.uuid4())
    same = events(1, traceId=one)[0]
    # Of one time: rows of one id that differ, rows alike in everything, and others before and behind.
    rows = [*events(4, traceId=one), *[same] * 7, *events(3, traceId=other), *events(3)]
    table.ingest(rows, ingested=STAMP)
    table.ingest(rows, ingested=STAMP + 100)
    table.ingest([same, same], ingested=STAMP + 100)
    with polling(table, page_rows=size) as poller:
        poller.judge()
        assert len(poller.outputs) == 36


@pytest.mark.parametrize("size", [2, 40, 5000])
def test_null_ids_are_handed_on_for_the_ingester_to_judge(table: Table, size: int) -> None:
    table.ingest([*events(14, traceId=None), *events(5), *[events(1, traceId=None)[0]] * 7])
    with polling(table, page_rows=size) as poller:
        poller.judge()
        without = [output for output in poller.outputs if output.key is None]
        assert len(without) == 21
        assert json.loads(without[0].value)["traceId"] is None
        assert without[0].headers == [("source", b"eventhouse")]


def test_odd_values_are_handed_on_for_the_ingester_to_judge(table: Table, poller: Poller) -> None:
    odd = ["plain", 5, None, [1, 2], "", True, {}, '{"n": 1}', '{"n": ', "  { } ", {"deep": {"n": None}}]
    table.ingest([event | {"data": value} for event, value in zip(events(len(odd)), odd, strict=True)])
    table.ingest(events(2, type="", version=None, utcDateTime=None))
    poller.judge()
    found = {json.dumps(json.loads(output.value)["data"]) for output in poller.outputs}
    assert {'"plain"', '"5"', "null", '"[1,2]"', '"true"', "{}", '{"n": 1}', '{"deep": {"n": null}}'} <= found
    assert '"{\\"n\\": "' in found


@local_only
def test_half_a_character_stops_nobody(table: Table, poller: Poller) -> None:
    assert table.local
    row = [["2026-01-05T00:00:00Z", "\ud800", "t", 1, None, '{"n": "\udfff"}']]
    names = [("it", "datetime"), ("traceId", "guid"), ("t", "string"), ("v", "long"), ("u", "datetime")]
    frames = [
        {"FrameType": "DataSetHeader"},
        {
            "FrameType": "DataTable",
            "TableId": 1,
            "TableKind": "PrimaryResult",
            "TableName": "PrimaryResult",
            "Columns": [{"ColumnName": n, "ColumnType": k} for n, k in [*names, ("data", "string")]],
            "Rows": row,
        },
        {"FrameType": "DataSetCompletion", "HasErrors": False, "Cancelled": False},
    ]
    table.ingest(events(1))
    table.local.fault("answer", contains="order by", status=200, body=json.dumps(frames))
    page = poller.step()
    assert page
    assert len(page.outputs) == 1
    assert b"\\udfff" in page.outputs[0].value


def test_what_comes_while_a_window_is_read_is_in_the_next(table: Table, poller: Poller) -> None:
    table.ingest(events(250))
    while not poller.outputs:
        poller.step()
    table.ingest(events(250))
    poller.judge()


@local_only
def test_rows_ingested_late_with_an_earlier_stamp_are_not_lost(table: Table, poller: Poller) -> None:
    assert table.local
    table.ingest(events(150), delay=None)
    table.ingest(events(120))
    poller.step()
    table.local.reveal()
    poller.judge()
    assert len(poller.outputs) == 270


@local_only
def test_rows_of_streaming_ingestion_come_when_they_have_their_cursor(table: Table, poller: Poller) -> None:
    assert table.local
    table.ingest(events(150), cursor_lag=None)
    table.ingest(events(120))
    assert poller.drain() == 120
    assert poller.drain() == 0
    table.local.seal()
    poller.judge()
    assert len(poller.outputs) == 270


@local_only
def test_a_cursor_that_moves_by_itself_neither_loses_rows_nor_costs_queries(
    table: Table, poller: Poller
) -> None:
    assert table.local
    table.local.change_settings(cursor_always_moves=True)
    for _ in range(4):
        table.ingest(events(30), cursor_lag=None)
        table.ingest(events(20))
        poller.drain()
        assert poller.step() is None
        table.local.seal()
        assert poller.step() is not None
        poller.source.facts()
        assert poller.step() is None
        assert len(poller.source.facts().queries) == 1
    poller.judge()


@pytest.mark.parametrize("committed", [True, False])
def test_another_process_goes_on_behind_the_last_committed_page(table: Table, committed: bool) -> None:
    table.ingest([*events(70), *events(30, traceId=None)])
    with polling(table, page_rows=20) as poller:
        if table.local is None:
            poller.settle()
        while poller.step():
            page = poller.source.fetch(1.0)  # the next one is fetched already when it dies
            if page and committed:
                poller.commit(page)
            poller.again()
        poller.judge()


def test_a_page_that_was_not_committed_comes_again(table: Table, poller: Poller) -> None:
    table.ingest(events(350))
    poller.settle() if table.local is None else poller.step()
    first = poller.source.fetch(1.0)
    poller.source.resume(poller.position)
    again = poller.source.fetch(1.0)
    assert (first is None) == (again is None)
    if first and again:
        assert [output.value for output in first.outputs] == [output.value for output in again.outputs]
        poller.commit(again)
    poller.judge()


def test_from_now_on_begins_with_a_position_that_is_kept(table: Table) -> None:
    table.ingest(events(30))
    with polling(table) as all_of_it:
        all_of_it.judge()
    with polling(table, start="now") as poller:
        page = poller.step()
        assert page
        assert not page.outputs
        poller.again()
        table.ingest(events(12))
        if table.local:
            poller.drain()
            assert len(poller.outputs) == 12
        position = Position.read(page.position, "")
        assert position.cursor


@local_only
def test_from_a_time_on_begins_with_what_was_ingested_then(table: Table) -> None:
    table.ingest(events(30), ingested=STAMP)
    table.ingest(events(20), ingested=STAMP + 100)
    with polling(table, start="2026-01-05T14:22:31.1234568Z", page_rows=7) as poller:
        poller.drain()
        assert len(poller.outputs) == 20
        table.ingest(events(5), ingested=STAMP)  # late, and after the beginning
        poller.drain()
        assert len(poller.outputs) == 25


def test_a_filter_leaves_rows_out(table: Table) -> None:
    table.ingest([*events(130, type="claims.a"), *events(120, type="other")])
    with polling(table, filter="['type'] startswith 'claims.' // ours", page_rows=50) as poller:
        poller.drain()
        if table.local:
            assert len(poller.outputs) == 130
        assert {json.loads(output.value)["type"] for output in poller.outputs} <= {"claims.a"}
        poller.source.facts()
        assert poller.step() is None
        assert len(poller.source.facts().queries) == 1


def test_columns_may_be_called_what_they_are(house: Eventhouse | None) -> None:
    names = {"c0": "string", "payload version": "string", "when": "datetime", "id": "string", "it": "string"}
    table = Table(house, names)
    try:
        rows = events(150)
        table.ingest(
            [
                dict(zip(names, (e["type"], "2", e["utcDateTime"], e["traceId"], '{"n": 1}'), strict=True))
                for e in rows
            ]
        )
        columns = Columns(
            type="c0", version="payload version", utc_date_time="when", trace_id="id", data="it"
        )
        with polling(table, columns=columns, page_rows=40) as poller:
            poller.judge()
            assert {json.loads(o.value)["traceId"] for o in poller.outputs} == {e["traceId"] for e in rows}
            assert json.loads(poller.outputs[0].value)["data"] == {"n": 1}
    finally:
        table.close()


def test_ids_may_be_any_text(house: Eventhouse | None) -> None:
    table = Table(house, COLUMNS | {"traceId": "string"})
    try:
        ids = [
            " ",
            "A",
            "a",
            "B",
            "b",
            "é",
            "ß",
            "-",
            "a-b",
            "ab",
            "aB",
            "0",
            "10",
            "9",
            "😀",
            "'\"\\",
            "",
        ] * 3
        table.ingest([event | {"traceId": id_} for event, id_ in zip(events(len(ids)), ids, strict=True)])
        with polling(table, page_rows=4) as poller:
            poller.judge()
    finally:
        table.close()


def test_a_position_of_another_version_is_an_operators_decision(table: Table, poller: Poller) -> None:
    with pytest.raises(ConfigError, match="pipelinectl sources reset"):
        poller.source.resume(b'{"version":99}')
    with pytest.raises(ConfigError, match="pipelinectl sources reset"):
        poller.source.resume(b"637239957206013576")

"""What may happen to the table under its reader, and what only an operator can decide."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from eventhouse_table import COLUMNS, REAL_URL, Columns, Poller, Table, events, lent, polling
from pipelined.errors import ConfigError
from pipelined.local.eventhouse import Eventhouse
from pipelined.sources.eventhouse import cursors
from pipelined.sources.eventhouse import source as source_module
from pipelined.sources.eventhouse.position import Position

pytestmark = pytest.mark.skipif(
    bool(REAL_URL), reason="a real cluster shows neither its schema nor its cursors at once"
)


@pytest.fixture(scope="module")
def house() -> Iterator[Eventhouse]:
    with Eventhouse() as server:
        yield server


@pytest.fixture
def table(house: Eventhouse) -> Iterator[Table]:
    with lent(house) as table:
        yield table


@pytest.fixture
def poller(table: Table) -> Iterator[Poller]:
    with polling(table) as poller:
        yield poller


def test_a_renamed_column_is_named_and_waited_for(table: Table, poller: Poller) -> None:
    table.ingest(events(250))
    poller.step()
    table.command(f".rename column ['{table.name}'].traceId to TraceId")
    for _ in range(2):
        with pytest.raises(ConfigError, match=r'eventhouse.columns.trace_id: .* no column "traceId"') as told:
            poller.step()
        assert "TraceId" in str(told.value)
    poller.again(columns=Columns(trace_id="TraceId"))
    table.columns = {("TraceId" if name == "traceId" else name): kind for name, kind in COLUMNS.items()}
    poller.judge()


def test_a_missing_column_is_named_before_anything_is_read(table: Table) -> None:
    table.ingest(events(5))
    with polling(table, columns=Columns(data="payload", type="kind")) as poller:
        with pytest.raises(ConfigError) as told:
            poller.step()
        assert len(told.value.problems) == 2
        assert "eventhouse.columns.data" in str(told.value)


def test_a_retyped_id_is_an_operators_decision(table: Table, poller: Poller) -> None:
    table.ingest(events(250))
    poller.step()
    table.command(f".alter column ['{table.name}'].traceId type=string")
    with pytest.raises(ConfigError, match=r"was of type guid and is of type string now.*sources reset"):
        poller.step()
    sent = len(poller.outputs)
    poller.position = poller.source.begin_at("now")
    poller.again()
    table.ingest(events(30))
    poller.drain()
    assert len(poller.outputs) == sent + 30


def test_an_id_of_a_type_that_is_none_is_refused(house: Eventhouse) -> None:
    table = Table(house, COLUMNS | {"traceId": "real"})
    try:
        with polling(table) as poller, pytest.raises(ConfigError, match="of type real, not guid or string"):
            poller.step()
    finally:
        table.close()


@pytest.mark.parametrize(("column", "kind"), [("utcDateTime", "string"), ("version", "string")])
def test_other_retyped_columns_are_handed_on_as_they_are(
    table: Table, poller: Poller, column: str, kind: str
) -> None:
    table.ingest(events(150))
    poller.drain()
    poller.judge()
    table.command(f".alter column ['{table.name}'].{column} type={kind}")
    before = len(poller.outputs)
    table.ingest(events(150, **{column: "2026-01-05 07:22"}))
    assert poller.drain() == 150
    assert b'"2026-01-05 07:22"' in poller.outputs[before].value


def test_a_payload_that_becomes_text_is_still_an_object(table: Table, poller: Poller) -> None:
    table.ingest(events(50))
    poller.judge()
    table.command(f".alter column ['{table.name}'].data type=string")
    table.ingest(events(50, data='{"assignmentId": "A1"}'))
    assert poller.drain() == 50
    assert b'"data":{"assignmentId": "A1"}' in poller.outputs[-1].value


def test_a_bad_filter_is_told_as_one(table: Table) -> None:
    table.ingest(events(5))
    with (
        polling(table, filter="nothere == 1") as poller,
        pytest.raises(ConfigError, match=r"eventhouse.filter is refused: .*nothere"),
    ):
        poller.step()


def test_a_table_that_is_not_there_is_named(table: Table) -> None:
    with (
        polling(table, table="Nowhere") as poller,
        pytest.raises(ConfigError, match='there is no table "Nowhere"'),
    ):
        poller.step()


def test_a_database_that_is_not_there_is_named(table: Table) -> None:
    with (
        polling(table, database="nowhere") as poller,
        pytest.raises(ConfigError, match=r"eventhouse.database: .*nowhere"),
    ):
        poller.step()


@pytest.mark.parametrize("decision", ["beginning", "now"])
def test_a_table_dropped_and_made_again_is_an_operators_decision(
    table: Table, poller: Poller, decision: str
) -> None:
    table.ingest(events(250))
    poller.judge()
    table.drop()
    with pytest.raises(ConfigError, match="there is no table"):
        poller.step()
    table.create()
    assert poller.step() is None  # it is empty: nothing to decide yet
    table.ingest(events(120))
    for call in (poller.step, poller.source.probe):
        with pytest.raises(ConfigError, match=r"made anew.*pipelinectl sources reset"):
            call()
    poller.position = poller.source.begin_at(decision)
    poller.outputs.clear()
    poller.again()
    if decision == "now":
        poller.drain()
        assert poller.outputs == []
        return
    poller.judge()


def test_a_table_made_again_in_the_middle_of_a_window_is_noticed_too(table: Table, poller: Poller) -> None:
    table.ingest(events(250))
    poller.step()
    table.drop()
    table.create()
    table.ingest(events(120))
    with pytest.raises(ConfigError, match="made anew"):
        poller.drain()


def test_rows_that_retention_took_are_no_reason_to_stop(
    table: Table, poller: Poller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cursors, "_RETENTION_S", 0.0)
    table.ingest(events(250))
    poller.drain()
    table.command(f".clear table ['{table.name}'] data")
    table.ingest(events(120))
    assert poller.drain() == 120


def test_a_database_put_back_is_an_operators_decision(house: Eventhouse, table: Table) -> None:
    with Eventhouse() as own:
        made_again = Table(own)
        with polling(made_again) as poller:
            made_again.ingest(events(20))
            poller.judge()
            own.restart_cursors()
            for call in (poller.step, poller.source.probe):
                with pytest.raises(ConfigError, match=r"before \d+ where reading ended.*sources reset"):
                    call()
        made_again.close()


def test_a_cursor_that_is_none_is_an_operators_decision(table: Table, poller: Poller) -> None:
    table.ingest(events(20))
    poller.source.resume(Position(1, cursor="not a cursor").to_bytes())
    with pytest.raises(ConfigError, match=r"does not know the cursor not a cursor.*sources reset"):
        poller.step()


def test_rows_without_an_ingestion_time_are_told(
    table: Table, poller: Poller, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(source_module, "_COUNTED_S", 0.0)
    table.command(f".alter table ['{table.name}'] policy ingestiontime false")
    table.ingest(events(30))
    table.command(f".alter table ['{table.name}'] policy ingestiontime true")
    table.ingest(events(20))
    assert poller.drain() == 20
    with caplog.at_level(logging.WARNING, "pipelined.sources"):
        poller.source.probe()
    assert "30 rows of the table" in caplog.text
    assert poller.source.facts().fallback == ""
    table.command(f".alter table ['{table.name}'] policy ingestiontime false")
    table.ingest(events(10))
    poller.source.probe()
    assert "10 rows came into the table without an ingestion time" in poller.source.facts().fallback


def test_another_table_has_a_position_of_its_own(table: Table, poller: Poller) -> None:
    with polling(table, table="Other") as other:
        assert other.source.key != poller.source.key
        assert other.source.key.startswith("eventhouse:")

"""What we take for granted of an Eventhouse, each point for itself; docs/why/eventhouse.md has them in words.

Against the local Eventhouse as a rule, against a real cluster where PIPELINED_EVENTHOUSE_URL names one.
"""

from __future__ import annotations

import re
import sys
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from azure.kusto.data import ClientRequestProperties
from azure.kusto.data.exceptions import KustoApiError, KustoMultiApiError

from eventhouse_table import COLUMNS, REAL_URL, Table, events
from pipelined.local.eventhouse import Eventhouse
from waiting import until

PAGE = Path(__file__).parents[2] / "docs/why/eventhouse.md"


@pytest.fixture(scope="module")
def house() -> Iterator[Eventhouse | None]:
    if REAL_URL:
        yield None
        return
    with Eventhouse() as server:
        yield server


@pytest.fixture
def table(house: Eventhouse | None) -> Iterator[Table]:
    table = Table(house)
    yield table
    table.close()


def ask(table: Table, text: str, given: dict[str, str] | None = None, **options: Any) -> list[list[Any]]:
    properties = ClientRequestProperties()
    for name, value in (given or {}).items():
        properties.set_parameter(name, value)
    for name, value in options.items():
        properties.set_option(name, value)
    answer = table.client.execute_query(
        table.section.database, text.replace("T|", f"['{table.name}']|"), properties
    )
    found: list[list[Any]] = answer.primary_results[0].raw_rows
    return found


def cursor(table: Table) -> str:
    return str(ask(table, "print cursor_current()")[0][0])


def within(table: Table, after: str, until_: str) -> list[str]:
    """The ids of the rows in a window of cursors."""
    text = (
        "declare query_parameters(a:string, u:string);\n"
        "T| where cursor_after(a) and cursor_before_or_at(u) | project tostring(traceId)"
    )
    return sorted(row[0] for row in ask(table, text, {"a": after, "u": until_}))


def ids(put: list[dict[str, Any]]) -> list[str]:
    return sorted(str(event["traceId"]) for event in put)


def have_cursors(table: Table, count: int) -> str:
    """A cursor that all rows are before."""
    until(lambda: len(within(table, "", cursor(table))) == count, patience=120)
    return cursor(table)


def test_each_row_is_in_one_window_and_a_window_does_not_change(table: Table) -> None:
    first, second = events(20), events(30)
    start = cursor(table)
    table.ingest(first)
    middle = have_cursors(table, 20)
    assert within(table, start, middle) == ids(first)
    table.ingest(second)
    end = have_cursors(table, 50)
    assert within(table, start, middle) == ids(first)
    assert within(table, middle, end) == ids(second)
    assert within(table, end, end) == []


def test_the_empty_cursor_is_before_all_rows(table: Table) -> None:
    put = events(5)
    table.ingest(put)
    assert within(table, "", have_cursors(table, 5)) == ids(put)


def test_a_cursor_never_goes_back(table: Table) -> None:
    seen = [cursor(table)]
    for _ in range(3):
        table.ingest(events(2))
        seen.append(cursor(table))
    assert all(text.isdecimal() for text in seen)
    assert [int(text) for text in seen] == sorted(int(text) for text in seen)


def test_one_query_tells_of_rows_behind_a_cursor_and_before_it(table: Table) -> None:
    text = (
        "declare query_parameters(a:string);\n"
        "T| where cursor_after(a) | take 1 | summarize waiting = count() "
        "| extend c = cursor_current(), m = now(), behind = toscalar("
        f"['{table.name}'] | where cursor_before_or_at(a) | take 1 | summarize count())"
    )
    start = cursor(table)
    assert [ask(table, text, {"a": start})[0][at] for at in (0, 3)] == [0, 0]
    table.ingest(events(3))
    end = have_cursors(table, 3)
    assert [ask(table, text, {"a": start})[0][at] for at in (0, 3)] == [1, 0]
    assert [ask(table, text, {"a": end})[0][at] for at in (0, 3)] == [0, 1]


def test_an_ingestion_time_has_seven_digits_and_is_found_again(table: Table) -> None:
    table.ingest(events(3))
    stamps = {row[0] for row in ask(table, "T| project ingestion_time()")}
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,7})?Z", stamp) for stamp in stamps)
    text = "declare query_parameters(t:datetime);\nT| where ingestion_time() == t | count"
    found = [ask(table, text, {"t": f"datetime({stamp})"})[0][0] for stamp in stamps]
    assert sum(found) == 3


def test_texts_are_ordered_as_they_are_compared(table: Table) -> None:
    wanted = ["", " ", "-", "0", "10", "9", "A", "B", "a", "a-b", "aB", "ab", "b", "ß", "é"]
    rows = ", ".join(f"'{text}'" for text in wanted)
    datatable = f"datatable(t:string) [{rows}]"
    ordered = [row[0] for row in ask(table, f"{datatable} | order by t asc")]
    assert ordered == wanted
    for at, text in enumerate(wanted):
        behind = f"declare query_parameters(k:string);\n{datatable} | where strcmp(t, k) > 0 | count"
        assert ask(table, behind, {"k": text}) == [[len(wanted) - at - 1]]


def test_the_text_of_an_id_is_lower_case_and_of_none_empty(table: Table) -> None:
    trace_id = str(uuid.uuid4())
    table.ingest(events(1, traceId=trace_id.upper()) + events(1, traceId=None))
    found = sorted(ask(table, "T| project tostring(traceId), traceId"))
    assert found == [["", None], [trace_id, trace_id]]


def test_the_text_of_a_payload_is_its_json_and_of_a_text_the_text(table: Table) -> None:
    table.ingest(
        [
            event | {"data": data}
            for event, data in zip(events(4), [{"a": [1]}, "plain", None, ""], strict=True)
        ]
    )
    assert sorted(ask(table, "T| project tostring(data)")) == [[""], [""], ["plain"], ['{"a":[1]}']]


def test_a_hash_is_a_text_of_hex_digits(table: Table) -> None:
    ((found,),) = ask(table, "print hash_sha256('World')")
    assert found == "78ae647dc5544d227130a0682a51e30bc7777fbb6d8a8f17007463a3ecd1d524"


def test_the_schema_has_names_and_types(table: Table) -> None:
    assert {name: kind for name, _, _, kind in ask(table, "T| getschema")} == COLUMNS


def test_the_time_of_a_query_is_the_services(table: Table) -> None:
    ((moment,),) = ask(table, "print now()")
    told = datetime.fromisoformat(moment)
    assert abs((told - datetime.now(UTC)).total_seconds()) < 3600


def test_too_large_an_answer_is_an_error_and_no_rows(table: Table) -> None:
    table.ingest(events(50))
    have_cursors(table, 50)
    with pytest.raises(KustoMultiApiError) as told:
        ask(table, "T| project data", truncationmaxsize=500)
    assert "LimitsExceeded" in {error.code for error in told.value.get_api_errors()}


def test_what_is_not_there_is_a_semantic_error(table: Table) -> None:
    for text in ("Nowhere | take 1", "T| where nothing == 1"):
        with pytest.raises(KustoApiError) as told:
            ask(table, text)
        assert told.value.is_semantic_error()
        assert told.value.http_response.status_code == 400
        assert told.value.error.permanent


def test_a_function_that_is_not_there_has_an_error_of_its_own(table: Table) -> None:
    if table.local:
        table.local.change_settings(cursors="off")
    name = "cursor_after" if table.local else "cursor_behind"
    try:
        with pytest.raises(KustoApiError, match=f"SEM0260.*'{name}'"):
            ask(table, f"T| where {name}('')")
    finally:
        if table.local:
            table.local.change_settings(cursors="on")


def test_the_page_in_the_documentation_names_every_point() -> None:
    text = PAGE.read_text("utf-8")
    points = [name for name in vars(sys.modules[__name__]) if name.startswith("test_")]
    assert [name for name in points if f"`{name}`" not in text and "documentation" not in name] == []

"""Limits, refusals and commands of the local Eventhouse, as the unmodified client sees them."""

from __future__ import annotations

import json
import time
import uuid
from datetime import timedelta

import pytest
from azure.kusto.data.exceptions import KustoApiError, KustoMultiApiError
from kustoasking import Asking, events

import kustoqueries as kql
from pipelined.errors import UsageError
from pipelined.local.eventhouse import Eventhouse


def test_too_many_records_are_an_error_that_takes_all_rows(house: Eventhouse, ask: Asking) -> None:
    house.ingest(kql.TABLE, events(12))
    house.change_settings(max_records=10)
    with pytest.raises(KustoMultiApiError, match="record count limit 10 ") as cut:
        ask.answer(kql.TABLE)
    assert [(error.code, error.permanent) for error in cut.value.get_api_errors()] == [
        ("LimitsExceeded", False)
    ]
    assert len(ask.rows(f"{kql.TABLE} | take 10")) == 10
    assert len(ask.rows(kql.TABLE, notruncation=True)) == 12


def test_too_many_bytes_are_an_error_too(house: Eventhouse, ask: Asking) -> None:
    house.ingest(kql.TABLE, events(50))
    with pytest.raises(KustoMultiApiError, match="data size limit 2000 "):
        ask.answer(kql.TABLE, truncationmaxsize=2000)
    assert len(ask.rows(f"{kql.TABLE} | take 5", truncationmaxsize=2000)) == 5


def test_a_deferred_limit_is_an_error_that_only_the_count_tells(house: Eventhouse, ask: Asking) -> None:
    house.ingest(kql.TABLE, events(12))
    answer = ask.answer(kql.TABLE, deferpartialqueryfailures=True, truncationmaxrecords=10)
    assert len(answer.primary_results[0].raw_rows) == 10
    assert answer.errors_count == 1
    assert "record count limit 10" in answer.get_exceptions()[0]


def test_an_error_placed_at_the_end_is_silent_truncation(house: Eventhouse, ask: Asking) -> None:
    house.ingest(kql.TABLE, events(12))
    options = {"results_error_reporting_placement": "end_of_dataset", "truncationmaxrecords": 10}
    answer = ask.answer(kql.TABLE, **options)
    assert len(answer.primary_results[0].raw_rows) == 10
    assert answer.errors_count == 0


def test_settings_in_the_text_count_and_the_lower_limit_wins(house: Eventhouse, ask: Asking) -> None:
    house.ingest(kql.TABLE, events(12))
    with pytest.raises(KustoMultiApiError, match="limit 5 "):
        ask.answer(f"set truncationmaxrecords=5;\n{kql.TABLE}", truncationmaxrecords=10)
    assert len(ask.rows(f"set notruncation; {kql.TABLE}")) == 12
    assert len(ask.rows(kql.TABLE, query_take_max_records=4)) == 4


def test_the_server_timeout_ends_a_query(house: Eventhouse, ask: Asking) -> None:
    house.ingest(kql.TABLE, events(3000))
    each = f"{kql.TABLE} | project ['type'], ['version']"
    query = f"{each} | join kind=inner ({each}) on ['type'] | join kind=inner ({each}) on ['type']"
    begun = time.monotonic()
    with pytest.raises(KustoApiError) as late:
        ask.rows(f"{query} | summarize sum(['version'])", servertimeout=timedelta(milliseconds=300))
    assert time.monotonic() < begun + 20
    assert late.value.http_response is not None
    assert late.value.http_response.status_code == 504
    assert late.value.error.permanent is False


@pytest.mark.parametrize(
    ("text", "words", "semantic"),
    [
        ("Evnts | take 1", "'Evnts'", True),
        ("events | take 1", "'events'", True),
        ("Events | where TraceId == ''", "'TraceId'", True),
        ("Events | where nothing == 1", "'nothing'", True),
        ("Events | wher x", "could not parse", False),
    ],
)
def test_a_query_that_does_not_fit_is_refused_in_the_services_words(
    ask: Asking, text: str, words: str, semantic: bool
) -> None:
    with pytest.raises(KustoApiError, match=words) as refused:
        ask.rows(text)
    assert refused.value.is_semantic_error() is semantic
    assert refused.value.error.permanent is True
    assert refused.value.http_response is not None
    assert refused.value.http_response.status_code == 400


def test_another_database_is_refused_and_the_default_name_is_taken(ask: Asking) -> None:
    assert ask.client.execute("NetDefaultDB", "print 1").primary_results[0].raw_rows == [[1]]
    with pytest.raises(KustoApiError, match="Database 'other' could not be found") as refused:
        ask.client.execute("other", "print 1")
    assert refused.value.error.code == "BadRequest_DatabaseNotExist"


def test_a_table_changes_under_its_reader(house: Eventhouse, ask: Asking) -> None:
    house.ingest(kql.TABLE, events(1))
    house.command(f".alter-merge table {kql.TABLE} (extra:string)")
    house.ingest(kql.TABLE, events(1, extra="new"))
    assert sorted(row[-1] for row in ask.rows(kql.TABLE)) == ["", "new"]
    house.command(f".rename column {kql.TABLE}.traceId to TraceId")
    with pytest.raises(KustoApiError, match="'traceId'"):
        ask.rows(kql.first_page(1), {"c0": "", "c1": ask.cursor()})
    house.command(f".alter column {kql.TABLE}.['version'] type=string")
    assert ask.rows(f"{kql.TABLE} | getschema | where ColumnName == 'version' | project ColumnType") == [
        ["string"]
    ]
    assert {row[1] for row in ask.rows(kql.TABLE)} == {""}, "what a column held is gone with its type"
    house.command(f".drop column {kql.TABLE}.version")
    assert len(ask.rows(kql.TABLE)[0]) == 5
    house.command(f".drop table {kql.TABLE}")
    with pytest.raises(KustoApiError, match="'Events'"):
        ask.rows(kql.TABLE)
    house.command(kql.CREATE)
    assert ask.rows(f"{kql.TABLE} | count") == [[0]]


def test_commands_answer_the_client(house: Eventhouse, ask: Asking) -> None:
    inline = f".ingest inline into table {kql.TABLE} <|\n" + "\n".join(
        ['a.b,1,2026-01-05T14:22:31Z,6f0c2b1e-8d3a-4c52-9a77-0e5d1b7c4f21,"{""x"": 1}"', "c.d,,,,text"]
    )
    ask.answer(inline)
    assert ask.rows(f"{kql.TABLE} | order by ['type'] asc") == [
        ["a.b", 1, "2026-01-05T14:22:31Z", "6f0c2b1e-8d3a-4c52-9a77-0e5d1b7c4f21", {"x": 1}],
        ["c.d", None, None, None, "text"],
    ]
    schema = ",".join(f"{name}:{kind}" for name, kind in kql.COLUMNS.items())
    assert ask.rows(f".show table {kql.TABLE} cslschema") == [[kql.TABLE, schema, "events", "", ""]]
    told = json.loads(ask.rows(f".show table {kql.TABLE} schema as json")[0][1])
    assert {c["Name"]: c["CslType"] for c in told["OrderedColumns"]} == kql.COLUMNS
    assert ask.rows(".show tables")[0][:2] == [kql.TABLE, "events"]
    assert ask.rows(".show databases")[0][0] == "events"
    assert ask.rows(f".show table {kql.TABLE} details")[0][-1] == 2
    assert json.loads(ask.rows(f".show table {kql.TABLE} policy ingestiontime")[0][2]) == {"IsEnabled": True}
    copied = ask.rows(f".set-or-append Copy <| {kql.TABLE} | project id = tostring(['traceId'])")
    assert copied[0][-1] == 2
    assert ask.rows("Copy | where isnotempty(id) | count") == [[1]]
    ask.answer(".clear table Copy data")
    assert ask.rows("Copy | count") == [[0]]


def test_commands_that_write_are_refused_to_a_reader(ask: Asking) -> None:
    with pytest.raises(KustoApiError, match="read-only") as refused:
        ask.rows(f".drop table {kql.TABLE}", request_readonly=True)
    assert refused.value.http_response is not None
    assert refused.value.http_response.status_code == 403
    assert ask.rows(".show tables", request_readonly=True)
    with pytest.raises(KustoApiError, match="Entity ID 'Other' of kind 'Table' was not found"):
        ask.rows(".show table Other cslschema")
    with pytest.raises(KustoApiError, match="knows no such command"):
        ask.rows(".purge everything")


def test_requests_are_kept_as_they_were_asked(house: Eventhouse, ask: Asking) -> None:
    house.forget_requests()
    ask.rows("declare query_parameters(p:string); print p", {"p": "x"}, request_readonly=True)
    (asked,) = house.requests()
    assert asked["endpoint"] == "query"
    assert asked["parameters"] == {"p": "x"}
    assert asked["options"]["request_readonly"] is True
    assert asked["headers"]["x-ms-client-request-id"].startswith("KPC.execute;")


@pytest.mark.parametrize("form", ["({})", "(dynamic([{}]))"])
def test_a_long_list_of_ids_is_no_obstacle(house: Eventhouse, ask: Asking, form: str) -> None:
    put = events(300)
    house.ingest(kql.TABLE, put)
    known = [event["traceId"] for event in put[:200]] + [str(uuid.uuid4()) for _ in range(10_000)]
    listed = form.format(", ".join(f"'{one}'" for one in known))
    begun = time.monotonic()
    assert ask.rows(f"{kql.TABLE} | where tostring(['traceId']) !in {listed} | count") == [[100]]
    assert ask.rows(f"{kql.TABLE} | where tostring(['traceId']) in {listed} | count") == [[200]]
    assert time.monotonic() < begun + 10


def test_a_long_list_may_be_a_parameter(house: Eventhouse, ask: Asking) -> None:
    put = events(300)
    house.ingest(kql.TABLE, put)
    query = (
        "declare query_parameters(known:dynamic); "
        f"{kql.TABLE} | where tostring(['traceId']) !in (known) | count"
    )
    for count in (3, 200):
        known = [event["traceId"] for event in put[:count]]
        assert ask.rows(query, {"known": f"dynamic({json.dumps(known)})"}) == [[300 - count]]
        assert ask.rows(query, {"known": json.dumps(known)}) == [[300 - count]]


def test_an_odd_order_is_refused(house: Eventhouse) -> None:
    with pytest.raises(UsageError, match="there is no fault 'odd'"):
        house.fault("odd")
    with pytest.raises(UsageError, match="no settings"):
        house.change_settings(odd=1)
    with pytest.raises(UsageError, match="'Other' of kind 'Table' was not found"):
        house.ingest("Other", [{}])
    with pytest.raises(UsageError, match="years 1678 to 2261"):
        house.ingest(kql.TABLE, events(1, utcDateTime="0001-01-01T00:00:00Z"))

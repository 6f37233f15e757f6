"""Types, parameters and clocks of the local Eventhouse, as the unmodified client of Microsoft sees them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from azure.kusto.data.exceptions import KustoApiError
from kustoasking import Asking, events

import kustoqueries as kql
from pipelined.local.eventhouse import Eventhouse

TYPED = "a:string, b:long, c:datetime, d:guid, e:dynamic, f:bool, g:real, h:timespan, i:int, j:decimal"


def test_every_type_comes_as_the_service_sends_it(house: Eventhouse, ask: Asking) -> None:
    house.command(f".create table Typed ({TYPED})")
    guid = "6f0c2b1e-8d3a-4c52-9a77-0e5d1b7c4f21"
    full = {
        "a": 'quoted "text" \n ü',
        "b": 2**53 + 1,
        "c": "2026-01-05T16:22:31.1234567+02:00",
        "d": guid.upper(),
        "e": {"x": [1, "2", None, {"y": "ü"}]},
        "f": True,
        "g": 0.1,
        "h": "1.02:03:04.5",
        "i": -7,
        "j": "1.25",
    }
    house.ingest("Typed", [full])
    house.ingest("Typed", [{}])
    house.ingest("Typed", [{"a": 5, "b": "x", "c": "x", "d": "x", "e": '{"x":1}', "g": "NaN", "c2": 1}])
    wanted = [*list(full.values())]
    wanted[2], wanted[3], wanted[7], wanted[9] = (
        "2026-01-05T14:22:31.1234567Z",
        guid,
        "1.02:03:04.5000000",
        "1.25000000000000",
    )
    rows = ask.rows("Typed")
    assert rows[0] == wanted
    assert rows[1] == ["", *[None] * 9], "a string is never null"
    assert rows[2][:7] == ["5", None, None, None, '{"x":1}', None, "NaN"]
    answer = ask.answer("Typed | take 1").primary_results[0]
    assert [column.column_type for column in answer.columns] == [
        pair.strip().split(":")[1] for pair in TYPED.split(",")
    ]
    assert answer[0]["c"] == datetime(2026, 1, 5, 14, 22, 31, 123456, tzinfo=UTC)
    assert answer[0]["h"] == timedelta(days=1, hours=2, minutes=3, seconds=4.5)


def test_dynamic_values_may_come_as_text(house: Eventhouse, ask: Asking) -> None:
    house.ingest(kql.TABLE, events(1))
    house.change_settings(dynamic_as_text=True)
    assert json.loads(ask.rows(f"{kql.TABLE} | project ['data']")[0][0])["assignmentId"] == "A0"


@pytest.mark.parametrize(
    ("declared", "value", "expected"),
    [
        ("string", "' or 1 == 1 | project secret //", "' or 1 == 1 | project secret //"),
        ("string", "datetime(2026-01-05)", "datetime(2026-01-05)"),
        ("long", 2**53 + 1, 2**53 + 1),
        ("long", "long(5)", 5),
        ("int", 5, 5),
        ("real", "real(1.5)", 1.5),
        ("bool", "true", True),
        ("bool", "bool(false)", False),
        ("datetime", "datetime(2026-01-05T14:22:31.1234567Z)", "2026-01-05T14:22:31.1234567Z"),
        ("datetime", "2026-01-05T16:22:31.1234567+02:00", "2026-01-05T14:22:31.1234567Z"),
        ("datetime", "datetime(null)", None),
        ("timespan", "time(1.02:00:00)", "1.02:00:00"),
        ("timespan", "90s", "00:01:30"),
        ("guid", "guid(6f0c2b1e-8d3a-4c52-9a77-0e5d1b7c4f21)", "6f0c2b1e-8d3a-4c52-9a77-0e5d1b7c4f21"),
        ("dynamic", 'dynamic(["a", {"b": 1}])', ["a", {"b": 1}]),
        ("dynamic", '{"a": null}', {"a": None}),
    ],
)
def test_parameters_are_values_of_their_types(ask: Asking, declared: str, value: Any, expected: Any) -> None:
    query = f"declare query_parameters(p:{declared}); print p = p"
    assert ask.rows(query, {"p": value}) == [[expected]]


def test_a_parameter_may_have_a_default_and_must_have_a_value(ask: Asking) -> None:
    query = "declare query_parameters(s:string = 'x', d:datetime = datetime(2026-01-05)); print s, d"
    assert ask.rows(query) == [["x", "2026-01-05T00:00:00Z"]]
    with pytest.raises(KustoApiError, match="has no value"):
        ask.rows("declare query_parameters(s:string); print s")
    with pytest.raises(KustoApiError, match="is no long"):
        ask.rows("declare query_parameters(n:long); print n", {"n": "x"})


def test_the_seventh_digit_counts(house: Eventhouse, ask: Asking) -> None:
    for digit in range(3):
        house.ingest(kql.TABLE, events(1, version=digit), ingested=1_767_622_951_123_456_700 + digit * 100)
    query = (
        "declare query_parameters(t:datetime);\nEvents | where ingestion_time() {} t | project ['version']"
    )
    at = {"t": "datetime(2026-01-05T14:22:31.1234568Z)"}
    assert ask.rows(query.format("=="), at) == [[1]]
    assert ask.rows(query.format(">"), at) == [[2]]
    literal = "Events | where ingestion_time() > datetime(2026-01-05T14:22:31.1234568Z) | count"
    assert ask.rows(literal) == [[1]]
    text = "Events | where ['version'] == 1 | project tostring(ingestion_time()), tolong(ingestion_time())"
    assert ask.rows(text) == [["2026-01-05T14:22:31.1234568Z", 639032197511234568]]


def test_the_clock_of_the_service_may_be_ahead(house: Eventhouse, ask: Asking) -> None:
    house.change_settings(clock_offset_s=600)
    house.ingest(kql.TABLE, events(1))
    now, stamp = ask.rows(f"{kql.TABLE} | project now(), ingestion_time()")[0]
    ahead = datetime.fromisoformat(stamp) - datetime.now(UTC)
    assert timedelta(minutes=9) < ahead < timedelta(minutes=11)
    assert abs(datetime.fromisoformat(now) - datetime.fromisoformat(stamp)) < timedelta(minutes=1)

"""The parts of the local Eventhouse, one by one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pipelined.local.eventhouse.answers import Column, Result, v1, v2
from pipelined.local.eventhouse.commands import parsed_columns
from pipelined.local.eventhouse.faults import Fault, Faults, refusal
from pipelined.local.eventhouse.lists import LONG, lifted
from pipelined.local.eventhouse.names import misspelt
from pipelined.local.eventhouse.refusals import RefusedError, limits_error
from pipelined.local.eventhouse.requests import Request, parameter
from pipelined.local.eventhouse.storage import Table
from pipelined.local.eventhouse.ticks import exact, stamp, widen

TABLES = {"Events": Table("Events", [Column("traceId", "guid"), Column("data", "dynamic")])}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-05T14:22:31.1234567Z", "2026-01-05T14:22:31.1234567"),
        ("2026-01-05T14:22:31.12345678Z", "2026-01-05T14:22:31.1234567"),
        ("2026-01-05 16:22:31.5+02:00", "2026-01-05T14:22:31.5000000"),
        ("2026-01-05T16:22-0130", "2026-01-05T17:52:00.0000000"),
        ("2026-01-05", "2026-01-05T00:00:00.0000000"),
        ("0001-01-01T00:00:00Z", "1677-09-22T00:00:00.0000000"),
        ("0001-01-01T00:00:00+14:00", "1677-09-22T00:00:00.0000000"),
        ("9999-12-31T23:59:59.9999999Z", "2262-04-11T00:00:00.0000000"),
    ],
)
def test_a_time_keeps_its_seven_digits(text: str, expected: str) -> None:
    assert exact(text) == expected


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01", "2026-01-05T25:00", "1767622951"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - of the text or of the calendar, worded by either
        exact(text)


def test_a_stamp_has_seven_digits() -> None:
    assert stamp(1_767_622_951_123_456_700) == "2026-01-05T14:22:31.1234567Z"


def test_sql_keeps_the_seventh_digit() -> None:
    literal = (
        "COALESCE(TRY_CAST('2026-01-05T14:22:31.1234567Z' AS TIMESTAMPTZ) AT TIME ZONE 'UTC', "
        "try_strptime(CAST('2026-01-05T14:22:31.1234567Z' AS VARCHAR), ['%m-%d-%Y', '%Y%m%d']))"
    )
    assert widen(f"a > {literal}") == "a > TIMESTAMP_NS '2026-01-05T14:22:31.1234567'"
    assert widen("a > CAST($kqlp0 AS TIMESTAMP)") == "a > CAST($kqlp0 AS TIMESTAMP_NS)"
    odd = literal.replace("2026-01-05T14:22:31.1234567Z", "01-05-2026")
    assert widen(odd) == odd


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Events | where traceId == ''", None),
        ("events | count", "events"),
        ("Events | where TraceId == ''", "TraceId"),
        ("Events | where ['TraceId'] == ''", "TraceId"),
        ("Events | where data.TraceId == 'x'", None),
        ("Events | where data['TraceId'] == 'x'", None),
        ("Events | where traceId == 'TraceId' // TraceId", None),
        ('Events | where traceId in (dynamic(["TraceId"]))', None),
        ("Events | extend TraceId = 1 | where TraceId == 1", None),
        ("declare query_parameters(TraceId:string); print TraceId", None),
        ("let Data = 1; print Data", None),
    ],
)
def test_a_name_in_the_wrong_case_is_found(text: str, found: str | None) -> None:
    assert misspelt(text, TABLES) == found


def test_long_lists_leave_the_text() -> None:
    numbers = ", ".join(map(str, range(LONG)))
    texts = ",".join(f"'it\\'s {number}'" for number in range(LONG))
    text = (
        f"T | where a in ({numbers}) and b !in~ (dynamic([{texts}])) and c in (1, 2) "
        "and d in (p) and e in (q)"
    )
    parameters = {"p": f"dynamic([{numbers}])", "q": "[1]"}
    query, tables = lifted(text, parameters)
    assert query == (
        "T | where a in (__list0 | project v) and b !in~ (__list1 | project v) and c in (1, 2) "
        "and d in (__list_p | project v) and e in (q)"
    )
    assert tables["__list0"] == tables["__list_p"] == list(range(LONG))
    assert tables["__list1"][:1] == ["it's 0"]


@pytest.mark.parametrize("odd", ["1.5", "a", "'x'", "datetime(2026-01-05)"])
def test_a_list_that_is_not_all_alike_stays(odd: str) -> None:
    text = f"T | where a in ({', '.join(map(str, range(LONG)))}, {odd})"
    assert lifted(text, {}) == (text, {})


def read(**body: Any) -> Request:
    return Request.read("query", {"X-Ms-Client-Request-Id": "7"}, json.dumps(body).encode())


def test_a_request_is_read_in_both_forms() -> None:
    properties = {"Options": {"NoTruncation": True}, "Parameters": {"p": 1}}
    for form in (properties, json.dumps(properties)):
        request = read(db="events", csl="T", properties=form)
        assert (request.database, request.text, request.id) == ("events", "T", "7")
        assert request.asks("notruncation")
        assert request.parameters == {"p": 1}
    assert read(csl="T").options == {}


def test_settings_in_the_text_are_options() -> None:
    text = "// first\nset notruncation;\nset truncationmaxrecords = 5;set query_now=datetime(2026-01-05);\nT"
    request = read(csl=text, properties={"Options": {"truncationmaxrecords": 3}})
    assert request.text.strip() == "T"
    assert request.asks("notruncation")
    assert request.number("truncationmaxrecords") == 3


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("0:04:00", 240.0), ("00:00:00.500000", 0.5), ("1.00:00:00", 86400.0), (None, None)],
)
def test_a_server_timeout_is_a_timespan(value: str | None, seconds: float | None) -> None:
    assert Request("query", options={"servertimeout": value}).timeout() == seconds


def test_a_server_timeout_that_kusto_does_not_know_is_refused() -> None:
    with pytest.raises(RefusedError, match="no timespan"):
        Request("query", options={"servertimeout": "1 day, 1:00:00"}).timeout()
    with pytest.raises(RefusedError, match="no number"):
        Request("query", options={"truncationmaxrecords": "x"}).number("truncationmaxrecords")


@pytest.mark.parametrize(
    ("kind", "value"),
    [("long", "x"), ("bool", "maybe"), ("datetime", "soon"), ("timespan", "x"), ("dynamic", "{")],
)
def test_a_parameter_of_another_type_is_refused(kind: str, value: str) -> None:
    with pytest.raises(RefusedError, match=f"'p' is no {kind}") as refused:
        parameter("p", kind, value)
    assert refused.value.status == 400


def test_columns_are_read_with_and_without_quotes() -> None:
    columns = parsed_columns(" a:string , ['b c'] : long,d:date ")
    assert columns == [Column("a", "string"), Column("b c", "long"), Column("d", "datetime")]
    with pytest.raises(RefusedError, match="no type of a column"):
        parsed_columns("a:text")
    with pytest.raises(RefusedError, match="no list of columns"):
        parsed_columns("a string")


def frames(result: Result, pieces: int = 2) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(b"".join(v2(result, "7", pieces=pieces)))
    return found


def test_an_answer_has_the_frames_of_the_service() -> None:
    result = Result.of("a:long, b:string", [[1, "x"], [2, "y"], [3, 'z"']])
    told = frames(result)
    assert [frame.get("TableKind", frame["FrameType"]) for frame in told] == [
        "DataSetHeader",
        "QueryProperties",
        "PrimaryResult",
        "QueryCompletionInformation",
        "DataSetCompletion",
    ]
    assert told[2]["Rows"] == [[1, "x"], [2, "y"], [3, 'z"']]
    assert told[2]["Columns"][0] == {"ColumnName": "a", "ColumnType": "long"}
    assert told[4] == {"FrameType": "DataSetCompletion", "HasErrors": False, "Cancelled": False}
    assert frames(Result.of("a:long"))[2]["Rows"] == []
    assert json.loads(v1(result))["Tables"][0]["Columns"][0]["DataType"] == "Int64"


@pytest.mark.parametrize("rows", [0, 3])
def test_an_error_stands_where_it_is_to_be_told(rows: int) -> None:
    def told(placement: str) -> list[dict[str, Any]]:
        result = Result.of("a:long", [[1]] * rows)
        result.error, result.placement = limits_error("too much", "7"), placement
        return frames(result)

    in_rows, at_end, deferred = told("rows"), told("end"), told("deferred")
    assert in_rows[2]["Rows"][:rows] == [[1]] * rows
    assert in_rows[2]["Rows"][rows]["OneApiErrors"][0]["error"]["code"] == "LimitsExceeded"
    assert [frame.get("TableKind") for frame in in_rows] == [None, "QueryProperties", "PrimaryResult", None]
    assert in_rows[-1]["HasErrors"] is True
    assert at_end[2]["Rows"] == [[1]] * rows
    assert at_end[-1]["OneApiErrors"][0]["error"]["@permanent"] is False
    assert deferred[-1]["HasErrors"] is False
    assert deferred[3]["Rows"][0][5:8] == [2, "Error", -2133196797]


def test_faults_befall_in_their_order_and_are_used_up() -> None:
    faults = Faults()
    faults.order(Fault(kind="throttled", skip=1, times=1))
    faults.order(Fault(kind="reset", contains="count", times=None))
    taken = [faults.take("query", text) for text in ("T", "T", "T", "T | count", "T | count")]
    assert [fault.kind if fault else None for fault in taken] == [None, "throttled", None, "reset", "reset"]
    assert faults.take("mgmt", "T | count") is None
    faults.clear()
    assert faults.take("query", "T | count") is None


def test_a_fault_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="there is no fault 'odd'"):
        Fault(kind="odd")


def test_only_some_faults_are_answers() -> None:
    assert refusal(Fault(kind="cut"), "7") is None
    answer = refusal(Fault(kind="throttled", retry_after="9"), "7")
    assert answer is not None
    status, headers, body = answer
    assert (status, headers["Retry-After"]) == (429, "9")
    assert json.loads(body)["error"]["@context"]["clientRequestId"] == "7"

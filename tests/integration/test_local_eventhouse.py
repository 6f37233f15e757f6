"""The local Eventhouse as the unmodified client of Microsoft sees it."""

from __future__ import annotations

import io
import json
import threading
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import kustoqueries as kql
import pytest
from azure.kusto.data import ClientRequestProperties, KustoClient, KustoConnectionStringBuilder
from azure.kusto.data.exceptions import KustoApiError, KustoMultiApiError
from azure.kusto.data.response import KustoResponseDataSet

from pipelined.errors import UsageError
from pipelined.local.eventhouse import Eventhouse

LONG_AGO, FAR = "datetime(2001-01-01)", "datetime(2201-01-01)"


class Asking:
    """A client of one database, with parameters and options as keywords."""

    def __init__(self, url: str) -> None:
        self.client = KustoClient(KustoConnectionStringBuilder.with_no_authentication(url))

    def answer(
        self, text: str, parameters: dict[str, Any] | None = None, **options: Any
    ) -> KustoResponseDataSet:
        properties = ClientRequestProperties()
        for name, value in (parameters or {}).items():
            properties.set_parameter(name, value)
        for name, value in options.items():
            properties.set_option(name, value)
        return self.client.execute("events", text, properties)

    def rows(self, text: str, parameters: dict[str, Any] | None = None, **options: Any) -> list[list[Any]]:
        answer = self.answer(text, parameters, **options)
        assert answer.errors_count == 0
        found: list[list[Any]] = answer.primary_results[0].raw_rows
        return found

    def cursor(self) -> str:
        return str(self.rows(kql.CURRENT)[0][0])


@pytest.fixture(scope="module")
def running() -> Iterator[Eventhouse]:
    with Eventhouse() as server:
        yield server


@pytest.fixture
def house(running: Eventhouse) -> Iterator[Eventhouse]:
    """An empty table, no faults, the settings a server starts with."""
    running.command(kql.CREATE)
    started_with = running.change_settings()
    yield running
    running.change_settings(**started_with)
    running.clear_faults()
    for table, *_ in running.command(".show tables"):
        running.command(f".drop table ['{table}']")


@pytest.fixture
def ask(house: Eventhouse) -> Iterator[Asking]:
    asking = Asking(house.url)
    yield asking
    asking.client.close()


def events(count: int, **fields: Any) -> list[dict[str, Any]]:
    return [
        {
            "type": "claims.estimatePackageReceived",
            "version": number,
            "utcDateTime": "2026-01-05T14:22:31.1234567Z",
            "traceId": str(uuid.uuid4()),
            "data": {"assignmentId": f"A{number}", "note": None, "attachments": ["x"]},
            **fields,
        }
        for number in range(count)
    ]


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

from __future__ import annotations

import datetime as dt
import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelined.lake.schemas import EVENTS
from pipelined.stages.columns import Converted
from pipelined.stages.contract import Partition, Record
from pipelined.stages.events_table import EventRows

PARTITION = Partition("xact.events.ingested", 0)
ARRIVED = 1767622951480

#: Column, and the path of its key in the message.
PATHS = {
    "description": "data.description",
    "assignment_id": "data.assignmentId",
    "original_assignment_id": "data.originalAssignmentId",
    "xn_address": "data.xnAddress",
    "carrier_id": "data.carrierId",
    "estimate_version": "data.estimateVersion",
    "note": "data.note",
    "author": "data.author",
    "sender_reviewer_name": "data.senderReviewerName",
    "sender_reviewer_email": "data.senderReviewerEmail",
    "carrier_reviewer_name": "data.carrierReviewerName",
    "carrier_reviewer_email": "data.carrierReviewerEmail",
    "event_datetime_mdt": "data.dateTime",
    "claim_number": "data.adm.coverageLoss.claimNumber",
    "contact_type": "data.contact.type",
    "contact_name": "data.contact.name",
    "contact_phone_type": "data.contact.contactMethods.phone.type",
    "contact_phone_number": "data.contact.contactMethods.phone.number",
    "contact_phone_extension": "data.contact.contactMethods.phone.extension",
    "contact_email_address": "data.contact.contactMethods.email.address",
}


def event(**changes: Any) -> dict[str, Any]:
    body: dict[str, Any] = {
        "type": "verisk.claims.property.xn.estimatePackageReceived",
        "version": 1,
        "utcDateTime": "2026-01-05T14:22:31.480000+00:00",
        "traceId": "6f0c2b1e-8d3a-4c52-9a77-0e5d1b7c4f21",
        "data": {"assignmentId": "05QK7ZD", "attachments": ["https://h.example/a.pdf"]},
    }
    return body | changes


def record(value: bytes, offset: int = 0, **headers: bytes) -> Record:
    return Record(
        partition=PARTITION,
        offset=offset,
        key=None,
        value=value,
        headers=[*headers.items()],
        timestamp=ARRIVED,
    )


def convert(*values: Any, **headers: bytes) -> Converted:
    raw = [value if isinstance(value, bytes) else json.dumps(value).encode() for value in values]
    return EventRows(EVENTS.schema).convert([record(v, n, **headers) for n, v in enumerate(raw)])


def only_row(value: Any, **headers: bytes) -> dict[str, Any]:
    converted = convert(value, **headers)
    assert converted.poison == []
    (row,) = converted.rows.table.to_pylist()
    return row


def test_the_example_of_the_contract_becomes_the_row_it_should() -> None:
    raw = """{"type":"verisk.claims.property.xn.estimatePackageReceived","version":1,
 "utcDateTime":"2026-01-05T14:22:31.480000+00:00","traceId":"6f0c2b1e-8d3a-4c52-9a77-0e5d1b7c4f21",
 "data":{"assignmentId":"05QK7ZD","originalAssignmentId":"05QK7Z0","carrierId":"3041234","xnAddress":"AB12.CD",
  "description":"Estimate package","estimateVersion":"2","dateTime":"2026-01-05 07:22:31",
  "attachments":["https://exports.example-bucket.s3.us-west-2.amazonaws.com/k/GENERIC.PDF?X-Amz-Expires=86400"],
  "adm":{"coverageLoss":{"claimNumber":"CLM-0099"}},
  "contact":{"type":"Insured","name":"J. Doe","contactMethods":{"phone":{"type":"Home","number":"5550100",
  "extension":""},"email":{"address":"j@example.org"}}}}}"""
    row = only_row(raw.encode(), source=b"eventhub", trace_id=b"6f0c2b1e-8d3a-4c52-9a77-0e5d1b7c4f21")
    created = row.pop("created_at")
    assert abs(created.timestamp() - time.time()) < 60
    assert row == {
        "type": "verisk.claims.property.xn.estimatePackageReceived",
        "status_subtype": "estimatePackageReceived",
        "version": "1",
        "ingested_at": dt.datetime(2026, 1, 5, 14, 22, 31, 480000, dt.UTC),
        "event_time": dt.datetime(2026, 1, 5, 14, 22, 31, 480000, dt.UTC),
        "event_date": dt.date(2026, 1, 5),
        "trace_id": "6f0c2b1e-8d3a-4c52-9a77-0e5d1b7c4f21",
        "description": "Estimate package",
        "assignment_id": "05QK7ZD",
        "original_assignment_id": "05QK7Z0",
        "xn_address": "AB12.CD",
        "carrier_id": "3041234",
        "estimate_version": "2",
        "note": None,
        "author": None,
        "sender_reviewer_name": None,
        "sender_reviewer_email": None,
        "carrier_reviewer_name": None,
        "carrier_reviewer_email": None,
        "event_datetime_mdt": "2026-01-05 07:22:31",
        "attachments": [
            "https://exports.example-bucket.s3.us-west-2.amazonaws.com/k/GENERIC.PDF?X-Amz-Expires=86400"
        ],
        "claim_number": "CLM-0099",
        "contact_type": "Insured",
        "contact_name": "J. Doe",
        "contact_phone_type": "Home",
        "contact_phone_number": "5550100",
        "contact_phone_extension": "",
        "contact_email_address": "j@example.org",
        "raw_json": raw,
        "source": "eventhub",
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-05T14:22:31Z", (14, 22, 31, 0)),
        ("2026-01-05T14:22:31", (14, 22, 31, 0)),
        (" 2026-01-05 14:22:31.5 ", (14, 22, 31, 500000)),
        ("2026-01-05T14:22:31.1234567Z", (14, 22, 31, 123456)),
        ("2026-01-05T14:22:31.1234567", (14, 22, 31, 123456)),
        ("2026-01-05T16:22:31.25+02:00", (14, 22, 31, 250000)),
    ],
)
def test_an_event_time_is_utc_whatever_its_form(text: str, expected: tuple[int, ...]) -> None:
    row = only_row(event(utcDateTime=text))
    assert row["event_time"] == dt.datetime(2026, 1, 5, *expected, tzinfo=dt.UTC)


def test_the_event_date_is_the_day_in_utc_not_that_of_the_offset() -> None:
    assert only_row(event(utcDateTime="2026-01-05T23:30:00-08:00"))["event_date"] == dt.date(2026, 1, 6)


@pytest.mark.parametrize(
    ("number", "text"),
    [
        ("2", "2"),
        ("1.0", "1.0"),
        ("1.50", "1.5"),
        ("1e3", "1000.0"),
        ("true", "true"),
        ("9" * 400, "9" * 400),
    ],
)
@pytest.mark.parametrize("key", ["assignmentId", "estimateVersion"])
def test_a_number_where_text_is_expected_is_becomes_text(key: str, number: str, text: str) -> None:
    raw = json.dumps(event(data={key: 0})).replace(f'"{key}": 0', f'"{key}": {number}').encode()
    converted = convert(raw)
    column = {"assignmentId": "assignment_id", "estimateVersion": "estimate_version"}[key]
    assert converted.rows.table[column].to_pylist() == [text]
    assert not converted.misshapen


@pytest.mark.parametrize(
    ("version", "stored"), [(1, "1"), ("2.0", "2.0"), (2**63, str(2**63)), (1.5, "1.5"), (None, "1")]
)
def test_a_version_is_text_and_1_where_there_is_none(version: Any, stored: str) -> None:
    assert only_row(event(version=version))["version"] == stored


@pytest.mark.parametrize(
    ("found", "stored"),
    [
        (None, None),
        ([], []),
        (["u", "", None, "v"], ["u", "v"]),
        ("u", ["u"]),
        (" u ", ["u"]),
        ("", []),
        ('["u", "v"]', ["u", "v"]),
        ("[broken", ["[broken"]),
        ([7, True, {"a": [1]}], ["7", "true", '{"a":[1]}']),
    ],
)
def test_attachments_are_a_list_of_texts_whatever_their_form(found: Any, stored: list[str] | None) -> None:
    converted = convert(event(data={"attachments": found}))
    assert converted.rows.table["attachments"].to_pylist() == [stored]
    assert not converted.misshapen


def test_what_has_a_wrong_shape_is_null_and_counted_and_its_neighbours_stay() -> None:
    data = {
        "assignmentId": ["x"],
        "note": {"a": 1},
        "contact": "nobody",
        "adm": {"coverageLoss": 5},
        "attachments": {"u": 1},
        "author": "A",
    }
    converted = convert(event(data=data), event(data={"contact": {"contactMethods": []}}))
    assert dict(converted.misshapen) == {
        "data.assignmentId": 1,
        "data.note": 1,
        "data.contact": 1,
        "data.adm.coverageLoss": 1,
        "data.attachments": 1,
        "data.contact.contactMethods": 1,
    }
    first = converted.rows.table.to_pylist()[0]
    assert [first[name] for name in ("assignment_id", "note", "contact_name", "attachments", "author")] == [
        None,
        None,
        None,
        None,
        "A",
    ]


def test_data_given_as_json_text_is_read_like_an_object() -> None:
    assert only_row(event(data='{"assignmentId": "A1", "note": null}'))["assignment_id"] == "A1"
    assert convert(event(data="no json")).misshapen == {"data": 1}


def test_the_header_s_trace_id_is_the_canonical_one_and_the_body_s_stands_in_for_it() -> None:
    assert only_row(event(traceId="BODY"), trace_id=b"header")["trace_id"] == "header"
    assert only_row(event(traceId="BODY"))["trace_id"] == "BODY"
    guid = "6F0C2B1E-8D3A-4C52-9A77-0E5D1B7C4F21"
    assert only_row(event(traceId=guid))["trace_id"] == guid.lower()


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (b"", "not_json"),
        (b"null", "not_an_object"),
        (b"[1]", "not_an_object"),
        (b"7", "not_an_object"),
        (b'{"a": 1}{}', "not_json"),
        (b'{"a": NaN}', "not_json"),
        (b'{"note": "\xff"}', "not_json"),
        (b'{"note": "\\ud800"}', "not_json"),
        (b'{"version": 1e999}', "not_json"),
        (b"\xef\xbb\xbf{}", "not_json"),
        (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "not_json"),
        (json.dumps(event(traceId=None)).encode(), "no_trace_id"),
        (json.dumps(event(utcDateTime=None)).encode(), "bad_time"),
        (json.dumps(event(utcDateTime="yesterday")).encode(), "bad_time"),
        (json.dumps(event(utcDateTime="0001-01-01T00:00:00+14:00")).encode(), "bad_time"),
    ],
)
def test_an_unreadable_message_is_poison_and_spoils_no_other(value: bytes, code: str) -> None:
    converted = convert(event(traceId="a"), value, event(traceId="b"))
    assert [(bad.value, error.code) for bad, error in converted.poison] == [(value, code)]
    assert converted.rows.table["trace_id"].to_pylist() == ["a", "b"]
    assert converted.rows.offsets == [0, 2]


def test_invalid_utf_8_is_poison_even_in_a_key_that_no_column_reads() -> None:
    raw = json.dumps(event(other="X")).encode().replace(b"X", b"\xff")
    assert [error.code for _, error in convert(raw).poison] == ["not_json"]


def test_characters_beyond_the_basic_plane_and_escapes_are_kept() -> None:
    row = only_row(event(data={"note": "\U0001f600", "author": 5}))
    assert (row["note"], row["author"]) == ("\U0001f600", "5")


def test_a_nul_character_is_kept() -> None:
    assert only_row(event(data={"note": "a\0b"}))["note"] == "a\0b"


def test_no_records_are_a_table_without_rows() -> None:
    converted = convert()
    assert converted.rows.table.num_rows == 0
    assert converted.rows.table.schema.equals(EVENTS.schema)


def test_thousands_of_records_keep_their_order_across_the_slices() -> None:
    converted = convert(*(event(traceId=f"t{n}", data={"note": str(n)}) for n in range(1501)))
    assert converted.rows.table["note"].to_pylist() == [str(n) for n in range(1501)]
    assert converted.rows.table["trace_id"].to_pylist() == [f"t{n}" for n in range(1501)]
    assert converted.rows.offsets == list(range(1501))


# An implementation of its own to compare with: plain json.loads, one value at a time.

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
ODD = st.one_of(
    st.none(),
    TEXT,
    st.booleans(),
    st.integers(),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(TEXT, st.none(), max_size=2),
)


@st.composite
def odd_events(draw: st.DrawFn) -> dict[str, Any]:
    body = event(traceId=draw(st.text("abcdef0123456789-", min_size=1, max_size=36)))
    body["type"] = draw(st.one_of(TEXT, st.just("a.b.c")))
    data: dict[str, Any] = {}
    for path in draw(st.lists(st.sampled_from([*PATHS.values(), "data.contact", "data.adm"]), max_size=8)):
        *way, last = path.split(".")[1:]
        place: Any = data
        for step in way:
            place = place.setdefault(step, {}) if isinstance(place, dict) else place
        if isinstance(place, dict):
            place[last] = draw(ODD)
    if draw(st.booleans()):
        data["attachments"] = draw(st.lists(TEXT, max_size=3))
    body["data"] = data
    return body


def expected_text(body: dict[str, Any], path: str) -> str | None:
    value: Any = body
    for step in path.split("."):
        value = value.get(step) if isinstance(value, dict) else None
    if isinstance(value, bool):
        return json.dumps(value)
    return str(value) if isinstance(value, str | int) else None


@settings(max_examples=200, deadline=None)
@given(st.lists(odd_events(), min_size=1, max_size=4))
def test_any_shape_gives_what_reading_it_value_by_value_gives(bodies: list[dict[str, Any]]) -> None:
    converted = convert(*bodies)
    assert converted.poison == []
    for body, row in zip(bodies, converted.rows.table.to_pylist(), strict=True):
        assert {name: row[name] for name in PATHS} == {n: expected_text(body, p) for n, p in PATHS.items()}
        assert row["trace_id"] == body["traceId"]
        assert row["status_subtype"] == body["type"].split(".")[-1]
        found = body["data"].get("attachments")
        assert row["attachments"] == (found if found is None else [url for url in found if url])
        assert json.loads(row["raw_json"]) == body


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(st.binary(max_size=30), st.just(json.dumps(event()).encode())), max_size=5))
def test_every_record_is_a_row_or_poison_whatever_its_bytes(values: list[bytes]) -> None:
    converted = convert(*values)
    assert len(converted.rows.records) + len(converted.poison) == len(values)
    assert converted.rows.table.num_rows == len(converted.rows.records)

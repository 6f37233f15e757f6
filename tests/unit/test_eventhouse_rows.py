"""A row of an Eventhouse as an event."""

from __future__ import annotations

import json

import pytest

from pipelined.sources.eventhouse.rows import output

STAMP = "2026-01-05T14:22:31.1234567Z"
TRACE_ID = "6f0c2b1e-8d3a-4c52-9a77-0e5d1b7c4f21"


def test_a_row_becomes_the_event_it_was() -> None:
    made = output([STAMP, TRACE_ID.upper(), "a.b", 1, STAMP, '{"n": 1.50, "t": "é"}'])
    assert made.value == (
        b'{"type":"a.b","version":1,"utcDateTime":"2026-01-05T14:22:31.1234567Z","traceId":"'
        + TRACE_ID.upper().encode()
        + b'","data":{"n": 1.50, "t": "\xc3\xa9"}}'
    )
    assert made.key == TRACE_ID.encode()
    assert made.headers == [("source", b"eventhouse"), ("trace_id", TRACE_ID.encode())]


@pytest.mark.parametrize(
    ("data", "carried"),
    [
        ("", None),
        ("plain", "plain"),
        ("[1]", "[1]"),
        ("7", "7"),
        (' {"a": {}} ', {"a": {}}),
        ('{"a": ', '{"a": '),
        ("{}x", "{}x"),
        ("{" * 100_000, "{" * 100_000),
    ],
)
def test_a_payload_is_an_object_where_its_text_is_one(data: str, carried: object) -> None:
    assert json.loads(output([STAMP, TRACE_ID, "t", None, None, data]).value)["data"] == carried


def test_a_row_without_an_id_has_no_key() -> None:
    made = output([STAMP, "", "t", 1, STAMP, "{}"])
    assert made.key is None
    assert json.loads(made.value)["traceId"] is None


@pytest.mark.parametrize("place", [1, 2, 5])
def test_half_a_character_is_carried_as_json_says_it(place: int) -> None:
    row = [STAMP, TRACE_ID, "t", 1, STAMP, "{}"]
    row[place] = "\ud800"
    made = output(row)
    assert b"\\ud800" in made.value
    assert made.value.isascii()

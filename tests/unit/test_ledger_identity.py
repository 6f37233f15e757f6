"""The ledger's own reading of ids: it must agree with the workers', to which it owes nothing."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest

from pipelined.ledger.identity import attachment_key, attachment_urls, key_of, name_of, parse, trace_id_of
from pipelined.messages.attachments import attachment_id, parse_link

TRACE = "6f0c2b1e-8d3a-4c52-9a77-0e5d1b7c4f21"
URLS = [
    "https://a.example/k/F.PDF?X-Amz-Date=1&X-Amz-Expires=2&X-Amz-Signature=abc",
    "https://a.example/k/F.PDF?x-amz-security-token=1&versionId=7",
    "https://a.example/f%20g?b=1+2&a=%C3%A9&empty=&flag",
    "https://acc.blob.core.windows.net/c/f.pdf?sv=2024&st=1&se=2&sr=b&sp=r&sig=%3D&snapshot=9",
    "https://claims.example/d?systemDate=1&expires=2&signature=x&documentId=55",
    "https://user:pass@a.example:8443/f.pdf#part",
    "HTTPS://A.example/Ü.pdf",
    "https://[broken/f.pdf?sig=1",
    "not a url at all",
    " https://a.example/f\n.pdf",
    "https://d111.cloudfront.net/f?Expires=1&Key-Pair-Id=2&Policy=3&Signature=4&token=5&keep=6",
    '{"url":"https://a.example"}',
    "https://a@b@c.example/d@e/f?g=@h",
    "me@a.example/f",
    "a.example/me@f",
    "https://a.example?",
    "https://a.example/f?&&sig=1&a&",
    "https://a.example/f?sig=1&",
    "https://a.example/f?a=1?b=2&se=3#c?d=4",
    "https://a.example/f#?a=1",
    "https://a.example/f://g@h/i",
    "https://a.example/f%0a\nSIG=1?SIG=2\n",
    "://@",
    "?",
    "#",
]


@pytest.mark.parametrize("url", URLS)
def test_an_attachment_has_the_id_that_the_workers_give_it(url: str) -> None:
    assert name_of(attachment_key(TRACE, url)) == attachment_id(TRACE, parse_link(url))


def test_the_id_of_an_attachment_is_the_uuid_of_trace_id_and_unsigned_url() -> None:
    namespace = uuid.UUID("5b3a8a0e-6f1d-5c39-9a38-0d6f1c1b7e52")
    wanted = uuid.uuid5(namespace, f"{TRACE}\nhttps://a.example/f.pdf?part=2")
    assert attachment_key(TRACE, "https://me@a.example/f.pdf?sig=1&part=2#x") == wanted.bytes


def test_half_a_surrogate_pair_in_a_url_or_trace_id_is_no_crash() -> None:
    event = parse(
        b'{"traceId": "t\\ud800", "data": {"attachments": ["https://a.example/\\ud800?q=\\udfff"]}}'
    )
    assert event is not None
    assert trace_id_of(event) == "t?"
    assert len(attachment_key("t?", attachment_urls(event)[0])) == 16


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (TRACE.upper(), TRACE),
        (TRACE, TRACE),
        ("Not-A-UUID", "Not-A-UUID"),
        (TRACE.upper().replace("-", ""), TRACE.upper().replace("-", "")),
        (f" {TRACE.upper()}", f" {TRACE.upper()}"),
        (12345678901234567890, "12345678901234567890"),
        (1.5, "1.5"),
        (True, "true"),
        ("", None),
        (None, None),
        ({}, None),
        ([TRACE], None),
    ],
)
def test_a_trace_id_is_text_and_a_uuid_is_lower_case(given: Any, wanted: str | None) -> None:
    assert trace_id_of({"traceId": given}) == wanted


@pytest.mark.parametrize(
    "name", [TRACE, TRACE.upper(), "", "x" * 16, "ü", TRACE.replace("-", ""), TRACE + "0"]
)
def test_a_key_stands_for_one_name_alone(name: str) -> None:
    assert name_of(key_of(name)) == name


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        ({"attachments": ["a", "b", "a"]}, ["a", "b", "a"]),
        ({"attachments": ["a", None, "", "b"]}, ["a", "b"]),
        ({"attachments": "a"}, ["a"]),
        ({"attachments": " "}, []),
        ({"attachments": '["a", "b"]'}, ["a", "b"]),
        ({"attachments": "[a"}, ["[a"]),
        ({"attachments": [7, {"u": "ü", "v": 1}, False]}, ["7", '{"u":"ü","v":1}', "false"]),
        ({"attachments": {"u": "a"}}, []),
        ({"attachments": 7}, []),
        ({"attachments": None}, []),
        ({}, []),
        (None, []),
        ([], []),
        ("", []),
        (json.dumps({"attachments": ["a"]}), ["a"]),
        ("[]", []),
        ("{", []),
    ],
)
def test_the_attachments_of_an_event_are_read_in_every_shape(data: Any, wanted: list[str]) -> None:
    assert attachment_urls({"data": data}) == wanted


@pytest.mark.parametrize(
    "value", [b"", None, b"null", b"[]", b"7", b"\xff{}", b"{", b"[" * 100_000, b'{"a":' * 100_000]
)
def test_what_is_no_json_object_is_none(value: bytes | None) -> None:
    assert parse(value) is None

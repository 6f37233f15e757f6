from __future__ import annotations

import datetime as dt
import re
import unicodedata
import uuid
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelined.messages.attachments import (
    NAMESPACE,
    attachment_id,
    attachment_urls,
    disambiguate,
    expiry,
    file_name,
    file_type,
    folder,
    parse_link,
    sanitise,
    unsigned,
)
from records import HOST, TRACE

FORBIDDEN = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f]')
SAFE = st.text(alphabet='ab./\\:<>"|?* \t\0é\u0301~%_-日\U0001f600\x7f\x9f', max_size=400)
ANYTHING = st.one_of(st.text(max_size=300), SAFE)


def safe(name: str) -> bool:
    return (
        0 < len(name.encode()) <= 255
        and name not in {".", ".."}
        and FORBIDDEN.search(name) is None
        and name == name.strip(". ")
        and name == unicodedata.normalize("NFC", name)
    )


# Names and paths.


@given(ANYTHING)
def test_a_sanitised_part_is_safe_everywhere_and_stays_as_it_is(text: str) -> None:
    name = sanitise(text, "attachment")
    assert safe(name), name
    assert sanitise(name, "other") == name


@given(ANYTHING, st.sampled_from(["a.b", "firstNoticeOfLossReceived", "estimatePackageReceived"]), ANYTHING)
def test_the_file_name_of_any_url_is_safe_also_when_it_must_be_told_apart(
    text: str, subtype: str, assignment: str
) -> None:
    for url in (f"{HOST}/{quote(text)}", f"{HOST}/{text}", text):
        name = file_name(parse_link(url), subtype, assignment, None)
        assert safe(name), name
        other = disambiguate(name, "0123456789abcdef")
        assert safe(other), other
        assert "~01234567" in other


@given(ANYTHING, ANYTHING, ANYTHING)
def test_a_folder_has_three_safe_parts_whatever_the_event_says(
    trace: str, subtype: str, assignment: str
) -> None:
    parts = folder(trace, subtype, assignment).split("/")
    assert len(parts) == 3
    assert all(safe(part) for part in parts)


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ("GENERIC.PDF", "GENERIC.PDF"),
        ("a b.pdf", "a b.pdf"),
        ('<>:"/\\|?*.pdf', "_________.pdf"),
        ("a\x00b\x1f\x7fc.pdf", "a_b__c.pdf"),
        ("  ..a.pdf.. ", "a.pdf"),
        ("e\u0301.pdf", "\xe9.pdf"),
        ("", "x"),
        (".", "x"),
        ("..", "x"),
        (" . . ", "x"),
    ],
)
def test_a_part_of_a_path_is_sanitised_by_the_rules(part: str, expected: str) -> None:
    assert sanitise(part, "x") == expected


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/k/GENERIC.PDF", "GENERIC.PDF"),
        ("/k/Photo%201%20%28a%29.jpg", "Photo 1 (a).jpg"),
        ("/k/a%2Fb%2Fc.pdf", "c.pdf"),
        ("/k/a%5Cb%5Cc.pdf", "c.pdf"),
        ("/k/%2e%2e%2fetc%2fpasswd", "passwd"),
        ("/k/%2e%2e", "attachment"),
        ("/k/%00.pdf", "_.pdf"),
        ("/k/caf%C3%A9.pdf", "café.pdf"),
        ("/k/cafe%CC%81.pdf", "café.pdf"),
        ("/k/%FF.pdf", "\ufffd.pdf"),
        ("/k/%ZZ.pdf", "%ZZ.pdf"),
        ("/k/a+b.pdf", "a+b.pdf"),
        ("/k/", "attachment"),
        ("", "attachment"),
        ("/k/.hidden", "hidden"),
        ("/k/a.pdf?name=b.pdf", "a.pdf"),
        ("/k/a.pdf#b/c.pdf", "a.pdf"),
        ("/a.pdf;v=1", "a.pdf;v=1"),
    ],
)
def test_the_name_is_the_last_segment_of_the_path_decoded(path: str, name: str) -> None:
    assert parse_link(HOST + path).name == name


@pytest.mark.parametrize(
    ("subtype", "version", "expected"),
    [
        ("documentsReceived", "2", "A1_x.pdf"),
        ("firstNoticeOfLossReceived", "2", "A1_FNOL_x.pdf"),
        ("estimatePackageReceived", "2", "A1_2_x.pdf"),
        ("estimatePackageReceived", None, "A1_unknown_x.pdf"),
        ("estimatePackageReceived", "", "A1_unknown_x.pdf"),
        ("estimatePackageReceived", "2/3", "A1_2_3_x.pdf"),
    ],
)
def test_the_file_name_follows_the_subtype(subtype: str, version: str | None, expected: str) -> None:
    assert file_name(parse_link(f"{HOST}/x.pdf"), subtype, "A1", version) == expected


def test_a_long_name_is_cut_before_its_extension_and_never_within_a_character() -> None:
    name = file_name(parse_link(f"{HOST}/{'é' * 200}.pdf"), "documentsReceived", "A1", None)
    assert name.startswith("A1_ééé")
    assert name.endswith("é.pdf")
    assert 254 <= len(name.encode()) <= 255
    other = disambiguate(name, "12345678-9")
    assert other.endswith("é~12345678.pdf")
    assert 254 <= len(other.encode()) <= 255


def test_what_is_no_extension_is_cut_like_the_rest() -> None:
    name = sanitise("a." + "b" * 300, "x")
    assert name == "a." + "b" * 253


def test_a_name_without_an_extension_is_told_apart_at_its_end() -> None:
    assert disambiguate("scan", "12345678-9") == "scan~12345678"


def test_the_parts_of_the_path_are_sanitised_the_same_way() -> None:
    assert folder("t/../t", "x/y", "..") == "x_y/_/t_.._t"


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a.pdf", "PDF"), ("a.tar.gz", "GZ"), ("a", "UNKNOWN"), ("a.", "UNKNOWN"), (".pdf", "UNKNOWN")],
)
def test_the_file_type_is_the_extension_in_capitals(name: str, expected: str) -> None:
    assert file_type(name) == expected


# Identity.


def test_an_attachment_id_is_the_uuid5_of_trace_id_and_unsigned_url() -> None:
    url = f"{HOST}/k/a.pdf?X-Amz-Signature=x&page=1"
    expected = uuid.uuid5(NAMESPACE, f"{TRACE}\n{HOST}/k/a.pdf?page=1")
    assert attachment_id(TRACE, parse_link(url)) == str(expected)


@given(st.text(max_size=20), st.text(max_size=40))
def test_any_trace_id_and_url_have_an_identity(trace: str, url: str) -> None:
    found = uuid.UUID(attachment_id(trace, parse_link(url)))
    assert (found.version, found.variant) == (5, uuid.RFC_4122)
    assert found == uuid.uuid5(NAMESPACE, f"{trace}\n{unsigned(url)}")


@pytest.mark.parametrize(
    ("query", "kept"),
    [
        ("X-Amz-Algorithm=a&X-Amz-Date=d&X-Amz-Expires=1&X-Amz-Signature=s", ""),
        ("x-amz-security-token=t&versionId=7", "?versionId=7"),
        ("sv=2&st=a&se=b&sr=c&sp=r&spr=https&sip=i&sig=s", ""),
        ("skoid=1&sktid=1&skt=1&ske=1&sks=1&skv=1&sig=s&comp=x", "?comp=x"),
        ("systemDate=1&expires=2&signature=s&id=9", "?id=9"),
        ("X-Goog-Signature=s&X-Goog-Expires=1&generation=4", "?generation=4"),
        ("AWSAccessKeyId=a&Expires=1&Signature=s", ""),
        ("Key-Pair-Id=k&Policy=p&Signature=s", ""),
        ("token=secret", ""),
        ("a=1&b", "?a=1&b"),
        ("", ""),
    ],
)
def test_signing_parameters_are_cut_out_and_the_others_kept(query: str, kept: str) -> None:
    assert unsigned(f"{HOST}/a.pdf?{query}") == f"{HOST}/a.pdf{kept}"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://user:secret@h.example/a.pdf", "https://h.example/a.pdf"),
        ("https://a@b:secret@h.example/a.pdf#x", "https://h.example/a.pdf"),
        ("//h.example/a.pdf?sig=s", "//h.example/a.pdf"),
        ("h.example/a@b.pdf", "h.example/a@b.pdf"),
        ("", ""),
        ("?sig=s", ""),
        ('{"url":"x"}', '{"url":"x"}'),
    ],
)
def test_user_info_and_fragment_are_never_shown(url: str, shown: str) -> None:
    assert unsigned(url) == shown


# Expiry.


@pytest.mark.parametrize(
    ("query", "ends"),
    [
        ("X-Amz-Date=20260105T142230Z&X-Amz-Expires=86400", "2026-01-06T14:22:30+00:00"),
        ("x-amz-date=20260105T142230Z&x-amz-expires=60", "2026-01-05T14:23:30+00:00"),
        ("X-Amz-Date=20260105T142230&X-Amz-Expires=60", "2026-01-05T14:23:30+00:00"),
        ("se=2026-01-05T14:22:30Z&sig=s", "2026-01-05T14:22:30+00:00"),
        ("se=2026-01-05T14%3A22%3A30Z&sig=s", "2026-01-05T14:22:30+00:00"),
        ("se=2026-01-05&sig=s", "2026-01-05T00:00:00+00:00"),
        ("se=2026-01-05T07:22:30-07:00&sig=s", "2026-01-05T14:22:30+00:00"),
        ("systemDate=1767622951480&expires=60000", "2026-01-05T14:23:31.480000+00:00"),
        ("se=2026-01-05T14:22:30Z", None),
        ("X-Amz-Date=20260105T142230Z", None),
        ("X-Amz-Date=x&X-Amz-Expires=60", None),
        ("X-Amz-Date=20260105T142230Z&X-Amz-Expires=1e3", None),
        ("X-Amz-Date=20260105T142230Z&X-Amz-Expires=99999999999999", None),
        ("X-Amz-Date=20260105T142230Z&X-Amz-Expires=" + "9" * 5000, None),
        ("se=0001-01-01T00:00:00%2B05:00&sig=s", None),
        ("systemDate=99999999999999999&expires=1", None),
        ("systemDate=now&expires=1", None),
        ("Expires=1767622951", None),
        ("", None),
    ],
)
def test_the_end_of_a_presigned_url_is_read_in_three_styles_and_never_guessed(
    query: str, ends: str | None
) -> None:
    found = expiry(f"{HOST}/a.pdf?{query}")
    assert (None if found is None else found.isoformat()) == ends


@given(st.text(max_size=30), st.text(max_size=30))
def test_no_query_makes_reading_the_end_fail_and_what_is_read_is_utc(one: str, other: str) -> None:
    for query in (
        f"X-Amz-Date={one}&X-Amz-Expires={other}",
        f"se={one}&sig=x",
        f"systemDate={one}&expires={other}",
    ):
        found = expiry(f"{HOST}/a?{query}")
        assert found is None or found.utcoffset() == dt.timedelta(0)


# What an event's list holds.


@pytest.mark.parametrize(
    ("value", "texts"),
    [
        (None, []),
        ({}, []),
        (7, []),
        (True, []),
        ("", []),
        (" u ", ["u"]),
        (["u", None, "", "v"], ["u", "v"]),
        ('["u", null, 7]', ["u", "7"]),
        ("[not json", ["[not json"]),
        ("[]", []),
        ([7, {"a": 1}, ["x"], True], ["7", '{"a":1}', '["x"]', "true"]),
    ],
)
def test_the_attachments_of_an_event_are_texts_whatever_their_shape(value: Any, texts: list[str]) -> None:
    assert attachment_urls(value) == texts

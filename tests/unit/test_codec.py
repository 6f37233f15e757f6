from __future__ import annotations

import datetime as dt
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelined.errors import PoisonError
from pipelined.messages.codec import decode, decode_object, encode, iso_ms, iso_now, parse_time, to_text
from pipelined.messages.task import CachedDownload, DownloadTask, Result
from records import task

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=40)
@given(st.dictionaries(st.text(max_size=5), JSON, max_size=5))
def test_an_object_survives_decoding_and_encoding(value: dict[str, Any]) -> None:
    assert decode_object(json.dumps(value)) == value
    assert json.loads(encode(decode_object(json.dumps(value, ensure_ascii=False).encode()))) == value


@given(st.binary(max_size=50))
def test_any_bytes_are_an_object_or_poison(value: bytes) -> None:
    code = ""
    try:
        assert isinstance(decode_object(value), dict)
    except PoisonError as error:
        code = error.code
    assert code in {"", "not_json", "not_an_object"}


def test_unknown_fields_of_a_message_are_no_error() -> None:
    value = json.loads(encode(task())) | {"new_field": [1], "metadata": {"a": {"b": 1}}}
    found = decode(encode(value), DownloadTask)
    assert found == task(metadata={"a": {"b": 1}})


@pytest.mark.parametrize("value", [b"", b"{", b"{}", b"[]", b'{"trace_id":1}', b"\xff", b"[" * 5000])
def test_a_message_that_is_none_of_its_kind_is_poison_and_says_so(value: bytes) -> None:
    for kind in (DownloadTask, CachedDownload, Result):
        with pytest.raises(PoisonError, match=f"not a {kind.__name__}"):
            decode(value, kind)


def test_a_cached_download_gives_its_task_back() -> None:
    given = task(estimate_version="2", retry_count=3, metadata={"x": 1})
    fields = {name: getattr(given, name) for name in DownloadTask.__struct_fields__}
    cached = CachedDownload(
        **fields,
        local_cache_path="/c/x",
        bytes_downloaded=1,
        sha256="0",
        http_status=200,
        downloaded_at="t",
        host="h",
    )
    assert decode(encode(cached), CachedDownload) == cached
    assert cached.task() == given
    assert type(cached.task()) is DownloadTask


def test_two_tasks_do_not_share_their_metadata() -> None:
    one, other = task(), task()
    one.metadata["x"] = 1
    assert other.metadata == {}


@given(st.datetimes(dt.datetime(1971, 1, 1), dt.datetime(2999, 1, 1)), st.integers(0, 6))
def test_a_time_with_any_number_of_digits_is_read_and_one_without_offset_is_utc(
    moment: dt.datetime, digits: int
) -> None:
    written = f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond:06}"
    text = written[: 20 + digits].rstrip(".")
    kept = moment.microsecond // 10 ** (6 - digits) * 10 ** (6 - digits)
    expected = moment.replace(microsecond=kept, tzinfo=dt.UTC)
    assert parse_time(text) == parse_time(text + "Z") == parse_time(f" {text}+00:00 ") == expected
    assert parse_time(text).tzinfo is dt.UTC


def test_a_seventh_digit_is_cut_off() -> None:
    assert parse_time("2026-01-05T14:22:31.1234567Z").microsecond == 123456


@pytest.mark.parametrize("text", ["", "now", "2026-02-30T00:00:00Z", "1767622951", "2026-01-05T25:00:00Z"])
def test_what_is_no_time_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_time(text)


@given(st.integers(0, 4_000_000_000_000))
def test_milliseconds_are_written_in_iso_with_z(ms: int) -> None:
    text = iso_ms(ms)
    assert (len(text), text[-1], text[19]) == (24, "Z", ".")
    assert parse_time(text).timestamp() * 1000 == pytest.approx(ms, abs=0.001)


def test_now_is_now() -> None:
    assert abs(parse_time(iso_now()) - dt.datetime.now(dt.UTC)) < dt.timedelta(seconds=10)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("x", "x"),
        ("", ""),
        (7, "7"),
        (2.5, "2.5"),
        (True, "true"),
        (False, "false"),
        (12345678901234567890123, "12345678901234567890123"),
        (None, None),
        ([], None),
        ({}, None),
    ],
)
def test_text_is_made_of_what_can_be_text(value: object, text: str | None) -> None:
    assert to_text(value) == text

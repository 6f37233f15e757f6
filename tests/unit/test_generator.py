from __future__ import annotations

import datetime as dt
import hashlib
import json
import re
import sys
import tracemalloc
import uuid
from collections import Counter
from typing import Any
from urllib.parse import urlsplit

import pytest

from pipelined.local.fileserver import expected_body
from pipelined.local.generator import Day, Summary
from pipelined.messages.attachments import expiry, parse_link

FILES = "http://127.0.0.1:18080"
START = dt.datetime(2026, 1, 6, 7, 30, tzinfo=dt.UTC)
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,7})?(\+00:00|Z|)")


def read(line: bytes) -> dict[str, Any] | None:
    """The event of a line with ``data`` as an object, None if it is unreadable."""
    try:
        event = json.loads(line.decode())
    except ValueError:
        return None
    if not isinstance(event, dict) or not isinstance(event.get("traceId"), str):
        return None
    if isinstance(event["data"], str):
        event["data"] = json.loads(event["data"])
    return event


class Generated:
    """The default day, read without the generator's own summary."""

    def __init__(self) -> None:
        day = Day(10_000, 1, FILES, start=START)
        self.lines = list(day.lines())
        self.summary = day.summary
        self.readable = [(line, event) for line in self.lines if (event := read(line)) is not None]
        self.events: dict[str, dict[str, Any]] = {}
        for _, event in self.readable:
            self.events.setdefault(event["traceId"], event)
        self.with_links = [event for event in self.events.values() if event["data"].get("attachments")]
        self.assigned = [event for event in self.with_links if event["data"].get("assignmentId")]
        self.urls = [url for event in self.assigned for url in event["data"]["attachments"]]


@pytest.fixture(scope="module")
def made() -> Generated:
    return Generated()


def test_the_same_arguments_give_the_same_bytes(made: Generated) -> None:
    day = Day(10_000, 1, FILES, start=START)
    assert list(day.lines()) == made.lines
    assert list(day.lines()) == made.lines, "a second reading of the same day"
    assert day.summary == made.summary


def test_another_seed_gives_other_events(made: Generated) -> None:
    other = [event for line in Day(1_000, 2, FILES, start=START).lines() if (event := read(line))]
    assert not {event["traceId"] for event in other} & made.events.keys()


def test_the_bytes_do_not_change_unnoticed() -> None:
    text = b"\n".join(Day(200, 7, FILES, start=START).lines())
    digest = "6a14b0839e872e7adc262bc25cbc198aa90060f85d048d617b88617905b299d1"
    assert hashlib.sha256(text).hexdigest() == digest


def test_a_line_is_about_as_long_as_a_real_event_and_holds_no_newline(made: Generated) -> None:
    assert 900 <= sum(map(len, made.lines)) / len(made.lines) <= 1_050
    assert max(map(len, made.lines)) < 16_384
    assert not any(b"\n" in line or b"\r" in line for line in made.lines)


def test_the_summary_agrees_with_what_was_written(made: Generated) -> None:
    summary = made.summary
    assert summary.lines == len(made.lines) == 10_000
    assert summary.distinct == len(made.events)
    assert summary.duplicates == len(made.readable) - len(made.events)
    assert summary.unreadable == len(made.lines) - len(made.readable)
    assert summary.with_attachments == len(made.assigned)
    assert summary.unassigned == len(made.with_links) - len(made.assigned)
    assert summary.attachments == len(made.urls) == len(set(made.urls))
    assert 0 < summary.deliverable < summary.attachments


def test_duplicates_and_unreadable_lines_are_a_small_share(made: Generated) -> None:
    assert 150 <= made.summary.duplicates <= 250
    assert 15 <= made.summary.unreadable <= 50
    assert 1 <= made.summary.unassigned <= 25


def test_a_quarter_of_the_events_has_one_to_three_attachments(made: Generated) -> None:
    assert 0.23 <= len(made.with_links) / len(made.events) <= 0.27
    counts = Counter(len(event["data"]["attachments"]) for event in made.with_links)
    assert sorted(counts) == [1, 2, 3]
    assert min(counts.values()) > 600
    of = {event["type"].rpartition(".")[2] for event in made.with_links}
    assert of == {"documentsReceived", "firstNoticeOfLossReceived", "estimatePackageReceived"}
    assert len({event["type"] for event in made.events.values()}) >= 12


def test_the_attachments_are_mostly_small_and_200_mb_in_all(made: Generated) -> None:
    own = [url for url in made.urls if url.startswith(FILES)]
    sizes = sorted(int(urlsplit(url).path.split("/")[2]) for url in own)
    assert sizes[0] >= 2_000
    assert 500_000 < sizes[-1] <= 2_000_000
    assert sizes[len(sizes) // 2] < 20_000
    assert 170e6 <= made.summary.attachment_bytes <= 240e6


def test_the_file_server_knows_every_file_of_its_own(made: Generated) -> None:
    for url in made.urls[:400]:
        if url.startswith(FILES):
            assert len(expected_body(url)) == int(urlsplit(url).path.split("/")[2])


def test_every_fault_occurs_in_its_share(made: Generated) -> None:
    ordered = Counter(urlsplit(url).path.split("/")[1] for url in made.urls if url.startswith(FILES))
    faults = made.summary.faults
    for fault in ("missing", "flaky-1", "flaky-2", "ratelimit-1", "slow", "cut", "cut-1", "nolength"):
        assert ordered[fault] == faults[fault] > 0
    for fault in ("redirect", "astray", "wrongtype", "disguised"):
        assert ordered[fault] == faults[fault] > 0
    names = [parse_link(url).name for url in made.urls]
    assert names.count("setup.exe") == faults["program"] > 0
    hosts = Counter(urlsplit(url).hostname for url in made.urls)
    assert hosts.keys() == {"127.0.0.1", "files.attacker.example", "169.254.169.254"}
    assert faults["forbidden_host"] == hosts["files.attacker.example"] + hosts["169.254.169.254"]
    assert 0.02 <= 1 - made.summary.deliverable / made.summary.attachments <= 0.04


def test_a_signature_is_good_for_days_or_has_expired_before_its_event(made: Generated) -> None:
    ends = [(url, end) for url in made.urls if (end := expiry(url))]
    assert len(ends) > 0.95 * len(made.urls)
    expired = [url for url, end in ends if end < START]
    assert len(expired) == made.summary.faults["expired"] > 0
    assert all(end > START + dt.timedelta(days=2) for url, end in ends if url not in expired)
    # Each of the three styles, good and expired.
    for mark in ("X-Amz-Expires=", "&se=", "systemDate="):
        assert any(mark in url for url, _ in ends if url not in expired)
    many = [event for line in Day(20_000, 3, FILES, start=START).lines() if (event := read(line))]
    links = [url for event in many for url in event["data"].get("attachments") or []]
    gone = [url for url in links if (end := expiry(url)) and end < START]
    for mark in ("X-Amz-Expires=", "&se=", "systemDate="):
        assert any(mark in url for url in gone)


def test_some_events_have_the_same_name_twice_under_different_folders(made: Generated) -> None:
    twice = 0
    for event in made.assigned:
        urls = event["data"]["attachments"]
        names = [parse_link(url).name for url in urls]
        if len(set(names)) < len(names):
            twice += 1
            assert len({urlsplit(url).path for url in urls}) == len(urls)
    assert twice >= made.summary.faults["same_name"] / 3 > 0


def test_names_are_percent_encoded_and_some_need_care(made: Generated) -> None:
    segments = [urlsplit(url).path.rpartition("/")[2] for url in made.urls]
    assert all(re.fullmatch(r"[A-Za-z0-9._~%-]+", segment) for segment in segments)
    text = " ".join(segments)
    for piece in ("%E8%A6%8B", "%2F", "%5C", "%3A", "%09", "e%CC%81", "%FC", "%ZZ", "%F0%9F"):
        assert piece in text
    assert any(len(segment) > 255 for segment in segments)


def test_the_payload_comes_as_object_and_as_text_with_unicode_escapes_nul_and_spaces(made: Generated) -> None:
    as_text = [line for line, _ in made.readable if isinstance(json.loads(line)["data"], str)]
    assert 500 <= len(as_text) <= 1_500
    assert any("山田".encode() in line for line in made.lines)
    assert any(b"\\u5c71\\u7530" in line for line in made.lines)
    assert any("🚿".encode() in line for line in made.lines)
    assert any(b"\\ud83d\\udebf" in line for line in made.lines)
    assert any(b"\\u0000" in line for line in made.lines)
    assert any("\u2028".encode() in line for line in made.lines)
    assert any(b'", "' in line for line in made.lines)


def test_times_are_spelt_in_every_way_and_lie_in_the_day_but_for_a_few(made: Generated) -> None:
    times = [event["utcDateTime"] for event in made.events.values()]
    forms = {(len(m[1] or "."), m[2]) for text in times if (m := TIME.fullmatch(text))}
    assert all(TIME.fullmatch(text) for text in times)
    assert forms == {(digits + 1, zone) for digits in range(8) for zone in ("+00:00", "Z", "")}
    ages = []
    for text in times:
        when = dt.datetime.fromisoformat(text)
        ages.append(START - (when if when.tzinfo else when.replace(tzinfo=dt.UTC)))
    day = dt.timedelta(days=1, minutes=2)
    late = sum(age > day for age in ages)
    assert 10 <= late <= 100
    assert max(ages) < dt.timedelta(days=4, minutes=3)
    assert min(ages) > dt.timedelta(minutes=-6)


def test_fields_are_missing_null_numbers_or_of_a_wrong_shape(made: Generated) -> None:
    datas = [event["data"] for event in made.events.values()]
    kinds: dict[str, set[type]] = {}
    for data in datas:
        for key in (
            "note",
            "carrierId",
            "contact",
            "adm",
            "author",
            "description",
            "estimateVersion",
            "attachments",
        ):
            kinds.setdefault(key, set()).add(type(data.get(key)))
    assert kinds["note"] >= {str, list, float, type(None)}
    assert kinds["carrierId"] >= {str, int, type(None)}
    assert kinds["contact"] >= {dict, list, str, type(None)}
    assert kinds["adm"] >= {dict, str, type(None)}
    assert kinds["description"] >= {str, dict}
    assert kinds["estimateVersion"] >= {str, int, type(None)}
    assert kinds["attachments"] == {list, type(None)}
    assert {} in datas
    versions = {json.dumps(event.get("version")) for event in made.events.values()}
    assert versions == {"1", "2", '"1"', '"2"', "null"}


def test_the_trace_id_is_a_uuid_of_its_own(made: Generated) -> None:
    assert all(str(uuid.UUID(trace_id)) == trace_id for trace_id in made.events)
    assert {uuid.UUID(trace_id).version for trace_id in made.events} == {4}


def test_a_duplicate_says_the_same_and_half_of_them_in_other_bytes(made: Generated) -> None:
    first: dict[str, tuple[bytes, dict[str, Any]]] = {}
    exact = other = 0
    for line, event in made.readable:
        if event["traceId"] not in first:
            first[event["traceId"]] = (line, event)
            continue
        earlier, said = first[event["traceId"]]
        assert event == said
        exact += line == earlier
        other += line != earlier
    assert exact > 50
    assert other > 50


def test_unreadable_lines_are_broken_in_each_way() -> None:
    lines = Day(10_000, 5, FILES, start=START).lines()
    broken = [line for line in lines if read(line) is None]
    ways = Counter()
    for line in broken:
        try:
            value = json.loads(line.decode())
        except UnicodeDecodeError:
            ways["not UTF-8"] += 1
        except ValueError:
            ways["truncated" if line.startswith(b"{") else "not JSON"] += 1
        else:
            ways[
                type(value).__name__ + (" null" if isinstance(value, dict) and "traceId" in value else "")
            ] += 1
    assert ways.keys() == {"not UTF-8", "truncated", "not JSON", "list", "int", "dict", "dict null"}


def test_the_forbidden_host_can_be_named() -> None:
    day = Day(5_000, 1, FILES, "http://127.0.0.2:9", start=START)
    events = [event for line in day.lines() if (event := read(line))]
    hosts = {urlsplit(url).netloc for event in events for url in event["data"].get("attachments") or []}
    assert hosts == {"127.0.0.1:18080", "127.0.0.2:9", "169.254.169.254"}


def test_the_start_may_be_told_in_any_zone() -> None:
    zone = dt.timezone(dt.timedelta(hours=-7))
    assert list(Day(50, 1, FILES, start=START.astimezone(zone)).lines()) == list(
        Day(50, 1, FILES, start=START).lines()
    )


@pytest.mark.parametrize("events", [0, 1, 2, 100])
def test_a_day_may_be_small(events: int) -> None:
    day = Day(events, 4, FILES, start=START)
    assert len(list(day.lines())) == events
    summary = day.summary
    assert summary.lines == summary.distinct + summary.duplicates + summary.unreadable == events


def test_a_day_not_yet_read_has_an_empty_summary() -> None:
    assert Day(10, 1, FILES, start=START).summary == Summary()


@pytest.mark.skipif(sys.gettrace() is not None, reason="a tracer would be measured too")
def test_memory_does_not_grow_with_the_number_of_events() -> None:
    lines = Day(1_000_000, 1, FILES, start=START).lines()
    for _ in range(3_000):
        next(lines)
    tracemalloc.start()
    try:
        for _ in range(3_000):
            next(lines)
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(6_000):
            next(lines)
        after = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    # The window of recent events is replaced, not added to: 6,000 kept events would be some 20 MB.
    assert after - before < 3_000_000

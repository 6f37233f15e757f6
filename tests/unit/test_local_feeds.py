"""What the local sources are fed: what a table can hold, which source has what, how batches come in."""

from __future__ import annotations

import datetime as dt
import itertools
import json
import random
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from flow import event, trace_ids
from pipelined.local.eventhouse.remote import Remote
from pipelined.local.feeds import share
from pipelined.local.generator import Day
from pipelined.local.table_rows import COLUMNS, TableWriter, table_row
from pipelined.local.upstream import EVENTHOUSE, EVENTHUB

NO_ROWS = [
    b"Service Unavailable",
    b"42",
    b"[]",
    b'"text"',
    b'{"type":"\xff\xfe"}',
    b'{"type":',
    b'{"type":"a","utcDateTime":"0001-01-01T00:00:00Z"}',
    b'{"data":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
]


@pytest.mark.parametrize("line", NO_ROWS, ids=lambda line: line[:24].decode(errors="replace"))
def test_a_line_that_is_no_event_is_no_row(line: bytes) -> None:
    assert table_row(line) is None


def test_a_row_has_the_five_columns_and_nothing_else() -> None:
    row = table_row(b'{"type":"a.b","traceId":12,"more":1,"data":"{\\"n\\":1}"}')
    assert row == {"type": "a.b", "version": None, "utcDateTime": None, "traceId": 12, "data": '{"n":1}'}
    assert tuple(row) == COLUMNS


def test_half_a_character_is_replaced_as_a_service_would() -> None:
    row = table_row(b'{"traceId":"a","data":{"note":"\\ud83d!"}}')
    assert row is not None
    assert row["data"] == {"note": "?!"}


def test_nearly_all_lines_of_a_generated_day_are_rows() -> None:
    day = Day(3_000, 5, "http://127.0.0.1:9", start=dt.datetime.now(dt.UTC))
    rows = [table_row(line) for line in day.lines()]
    left_out = sum(row is None for row in rows)
    assert 0 < left_out <= day.summary.unreadable
    assert len({row["traceId"] for row in rows if row}) >= day.summary.distinct


def test_most_lines_are_in_both_sources_a_few_in_one_and_none_in_neither(tmp_path: Path) -> None:
    lines = [event(trace) for trace in trace_ids(2_000)] + [b"no event"]
    file = tmp_path / "events.jsonl"
    file.write_bytes(b"\n".join(lines) + b"\n\n  \n")
    table, hub = (set(share(file, 3, name)) for name in (EVENTHOUSE, EVENTHUB))
    assert table | hub == set(lines)
    assert 40 <= len(table - hub) <= 180
    assert 40 <= len(hub - table) <= 180
    assert b"no event" in hub
    assert list(share(file, 3, EVENTHUB)) == list(share(file, 3, EVENTHUB))


class Taken(Remote):
    """A server that keeps what it is handed."""

    def __init__(self) -> None:
        super().__init__("http://127.0.0.1:9", "events")
        self.batches: list[tuple[int, int | None, float | None, float | None]] = []

    def ingest(
        self,
        table: str,
        rows: Iterable[Mapping[str, Any]],
        *,
        ingested: int | None = None,
        delay: float | None = 0.0,
        cursor_lag: float | None = 0.0,
    ) -> list[int]:
        assert table == "Events"
        self.batches.append((len(list(rows)), ingested, delay, cursor_lag))
        return [len(self.batches)]


def test_batches_come_streamed_late_and_with_the_stamp_of_the_one_before() -> None:
    taken = Taken()
    writer = TableWriter(taken, "Events", random.Random(1))
    for _ in range(20):
        writer.put([{"traceId": "a"}])
    writer.put([])
    stamps = [stamp for _, stamp, _, _ in taken.batches]
    assert len(taken.batches) == 20
    assert sum(bool(lag) for *_, lag in taken.batches) == 4
    assert sum(bool(delay) for _, _, delay, _ in taken.batches) == 4
    assert sum(one == other for one, other in itertools.pairwise(stamps)) >= 1
    longest = max((delay or 0) + (lag or 0) for _, _, delay, lag in taken.batches)
    assert 0 < writer.done_at - time.monotonic() <= longest


def test_a_row_survives_json() -> None:
    line = event(next(trace_ids(1)), ["http://127.0.0.1/a.pdf"])
    assert table_row(line) == json.loads(line)

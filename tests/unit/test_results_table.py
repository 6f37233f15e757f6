from __future__ import annotations

import datetime as dt
from typing import Any

import msgspec
import pytest

from pipelined.lake.schemas import ATTACHMENTS, FAILED
from pipelined.messages.task import Result
from pipelined.stages.contract import Partition, Record
from pipelined.stages.results_table import ConvertedResults, ResultRows

DONE: dict[str, Any] = {
    "trace_id": "t1",
    "attachment_id": "a1",
    "attachment_url": "https://h.example/k/a.pdf",
    "blob_path": "documentsReceived/05QK7ZD/t1/05QK7ZD_a.pdf",
    "status_subtype": "documentsReceived",
    "file_type": "PDF",
    "assignment_id": "05QK7ZD",
    "status": "completed",
    "original_timestamp": "2026-01-05T23:22:31.4812345Z",
    "created_at": "2026-01-06T00:00:01.250Z",
    "http_status": 200,
    "bytes_downloaded": 5_000_000_000,
    "sha256": "ab" * 32,
}
FAILURE: dict[str, Any] = DONE | {
    "status": "failed_permanent",
    "http_status": 404,
    "sha256": None,
    "retry_count": 3,
    "error_category": "permanent",
    "error_message": "gone",
    "expires_at": "2026-01-06T14:22:30+00:00",
    "expired_at_ingest": True,
}


def convert(*values: Any) -> ConvertedResults:
    partition = Partition("xact.downloads.results", 2)
    records = [
        Record(
            partition=partition,
            offset=n,
            key=None,
            value=value if isinstance(value, bytes) else msgspec.json.encode(value),
            headers=[],
            timestamp=0,
        )
        for n, value in enumerate(values)
    ]
    return ResultRows(ATTACHMENTS.schema, FAILED.schema).convert(records)


def test_a_result_becomes_one_row_with_its_fields_and_times() -> None:
    (row,) = convert(DONE).attachments.table.to_pylist()
    updated = row.pop("updated_at")
    assert abs((updated - dt.datetime.now(dt.UTC)).total_seconds()) < 60
    assert row == DONE | {
        "original_timestamp": dt.datetime(2026, 1, 5, 23, 22, 31, 481234, dt.UTC),
        "created_at": dt.datetime(2026, 1, 6, 0, 0, 1, 250000, dt.UTC),
        "event_date": dt.date(2026, 1, 5),
        "retry_count": 0,
        "error_category": None,
        "error_message": None,
        "expires_at": None,
        "expired_at_ingest": None,
    }


def test_only_final_failures_become_rows_of_the_failures_table() -> None:
    converted = convert(DONE, FAILURE, DONE | {"status": "failed"})
    assert converted.attachments.offsets == [0, 1, 2]
    assert converted.failed.offsets == [1, 2]
    rows = converted.failed.table.to_pylist()
    assert [row["status"] for row in rows] == ["failed_permanent", "failed"]
    assert rows[0]["failed_at"] == dt.datetime(2026, 1, 6, 0, 0, 1, 250000, dt.UTC)
    assert rows[0]["expires_at"] == dt.datetime(2026, 1, 6, 14, 22, 30, tzinfo=dt.UTC)
    assert (rows[0]["http_status"], rows[0]["error_category"], rows[0]["expired_at_ingest"]) == (
        404,
        "permanent",
        True,
    )


def test_the_tables_have_exactly_their_schemas_also_without_a_row() -> None:
    for converted in (convert(), convert(DONE), convert(FAILURE)):
        assert converted.attachments.table.schema.equals(ATTACHMENTS.schema)
        assert converted.failed.table.schema.equals(FAILED.schema)


def test_a_field_that_we_do_not_know_is_ignored() -> None:
    converted = convert(DONE | {"next_year": {"a": 1}})
    assert converted.poison == []
    assert converted.attachments.table.num_rows == 1


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (b"", "unreadable"),
        (b"{}", "unreadable"),
        (b'{"a": ' + b"[" * 100_000, "unreadable"),
        (DONE | {"bytes_downloaded": "many"}, "unreadable"),
        (DONE | {"status": "perhaps"}, "bad_result"),
        (DONE | {"original_timestamp": "yesterday"}, "bad_time"),
        (DONE | {"expires_at": "never"}, "bad_time"),
        (DONE | {"http_status": 2**31}, "bad_result"),
        (DONE | {"bytes_downloaded": 2**63}, "bad_result"),
    ],
)
def test_an_unreadable_result_is_poison_and_spoils_no_other(value: Any, code: str) -> None:
    converted = convert(DONE, value, FAILURE)
    assert [(bad.offset, error.code) for bad, error in converted.poison] == [(1, code)]
    assert converted.attachments.offsets == [0, 2]
    assert converted.failed.offsets == [2]


def test_every_field_of_a_result_reaches_a_column() -> None:
    (row,) = convert(FAILURE).attachments.table.to_pylist()
    assert all(row[name] is not None for name in Result.__struct_fields__ if name != "sha256")

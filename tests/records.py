"""Records, tasks and counters for tests that run a part on plain lists."""

from __future__ import annotations

import json
from typing import Any

from pipelined.messages.task import DownloadTask
from pipelined.stages.contract import Headers, Output, Partition, Record
from pipelined.stats.slots import Child

ARRIVED = 1767622951480
TRACE = "6f0c2b1e-8d3a-4c52-9a77-0e5d1b7c4f21"
HOST = "https://exports.example-bucket.s3.us-west-2.amazonaws.com"
P0, P1 = Partition("t.in", 0), Partition("t.in", 1)


def slot() -> Child:
    """The page of a worker that nobody else reads."""
    return Child(memoryview(bytearray(4096)))


def record(
    value: Any = b"{}",
    offset: int = 0,
    partition: Partition = P0,
    *,
    key: bytes | None = None,
    headers: Headers | None = None,
    timestamp: int = ARRIVED,
) -> Record:
    """A record; a value that is no bytes is written as JSON."""
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return Record(partition, offset, key, data, headers or [], timestamp)


def event(*attachments: Any, **changes: Any) -> dict[str, Any]:
    """A source event with these attachments; ``changes`` replace its five fields."""
    data: dict[str, Any] = {"assignmentId": "05QK7ZD", "estimateVersion": "2"}
    if attachments:
        data["attachments"] = list(attachments)
    body = {
        "type": "verisk.claims.property.xn.estimatePackageReceived",
        "version": 1,
        "utcDateTime": "2026-01-05T14:22:31.480000+00:00",
        "traceId": TRACE,
        "data": data,
    }
    return {name: value for name, value in (body | changes).items() if value is not ...}


def task(**changes: Any) -> DownloadTask:
    """A download task."""
    fields: dict[str, Any] = {
        "trace_id": TRACE,
        "attachment_id": "a1",
        "attachment_url": f"{HOST}/x.pdf?X-Amz-Signature=secret",
        "blob_path": f"s/a/{TRACE}/a_x.pdf",
        "status_subtype": "s",
        "file_type": "PDF",
        "assignment_id": "a",
        "event_type": "xact",
        "event_subtype": "s",
        "original_timestamp": "2026-01-05T00:00:00Z",
    }
    return DownloadTask(**(fields | changes))


def headers_of(output: Output) -> dict[str, str]:
    """The headers of an output as texts."""
    return {name: value.decode() for name, value in output.headers if isinstance(value, bytes)}

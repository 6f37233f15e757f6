"""Download tasks, as the ingester makes them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

from benchmarks.events import Events
from benchmarks.ground import Message
from pipelined.messages.codec import encode
from pipelined.messages.task import DownloadTask

__all__ = ["tasks"]


def tasks(events: Events, count: int) -> Iterator[Message]:
    """A task for the first attachment of each of the first ``count`` events."""
    expires = (dt.datetime.now(dt.UTC) + dt.timedelta(days=1)).isoformat()
    for number in range(count):
        trace = events.key(number)
        name = f"photo_{number}_0.pdf"
        task = DownloadTask(
            trace_id=trace.decode(),
            attachment_id=trace.decode(),
            attachment_url=events.url(number, 0).decode(),
            blob_path=f"noteAdded/05{number:05X}/{trace.decode()}/{name}",
            status_subtype="noteAdded",
            file_type="PDF",
            assignment_id=f"05{number:05X}",
            event_type="xact",
            event_subtype="noteAdded",
            original_timestamp="2026-01-05T14:30:11Z",
            expires_at=expires,
        )
        yield trace, encode(task), [("trace_id", trace), ("source", b"local")]

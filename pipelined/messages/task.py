"""The messages of an attachment's way: download task, cached download, result."""

from __future__ import annotations

from typing import Any

import msgspec

__all__ = ["CachedDownload", "DownloadTask", "Result", "Status"]

#: Longest error message a result carries, in characters.
ERROR_MESSAGE_LIMIT = 500


class Status:
    """The outcome of an attachment, as results and tables carry it."""

    COMPLETED = "completed"
    FAILED = "failed"
    FAILED_PERMANENT = "failed_permanent"


class DownloadTask(msgspec.Struct, kw_only=True, gc=False):
    """One attachment to fetch. ``attachment_id`` is its identity everywhere; times are ISO-8601 UTC."""

    trace_id: str
    attachment_id: str
    attachment_url: str
    blob_path: str
    status_subtype: str
    file_type: str
    assignment_id: str
    event_type: str
    event_subtype: str
    original_timestamp: str
    estimate_version: str | None = None
    retry_count: int = 0
    expires_at: str | None = None
    metadata: dict[str, Any] = {}


class CachedDownload(DownloadTask, kw_only=True, gc=False):
    """A task whose file lies, durable, at ``local_cache_path`` on ``host``."""

    local_cache_path: str
    bytes_downloaded: int
    sha256: str
    http_status: int
    downloaded_at: str
    host: str
    content_type: str | None = None

    def task(self) -> DownloadTask:
        """The task it came from, to fetch it again."""
        return DownloadTask(**{name: getattr(self, name) for name in DownloadTask.__struct_fields__})


class Result(msgspec.Struct, kw_only=True):
    """The outcome of one attachment. ``attachment_url`` carries no signature."""

    trace_id: str
    attachment_id: str
    attachment_url: str
    blob_path: str
    status_subtype: str
    file_type: str
    assignment_id: str
    status: str
    original_timestamp: str
    created_at: str
    http_status: int | None = None
    bytes_downloaded: int = 0
    sha256: str | None = None
    retry_count: int = 0
    error_category: str | None = None
    error_message: str | None = None
    expires_at: str | None = None
    expired_at_ingest: bool | None = None

    @classmethod
    def of(cls, task: DownloadTask, *, attachment_url: str, status: str, created_at: str) -> Result:
        """The result of a task: what both have in common, and how it ended. The rest is set afterwards."""
        common = {name: getattr(task, name) for name in _COMMON}
        return cls(attachment_url=attachment_url, status=status, created_at=created_at, **common)


_COMMON = (set(DownloadTask.__struct_fields__) & set(Result.__struct_fields__)) - {"attachment_url"}

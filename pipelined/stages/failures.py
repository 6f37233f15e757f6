"""What a failure becomes: a retry, a dead letter, a failed result. Pure functions, used by one router."""

from __future__ import annotations

import hashlib
import os
import time

from pipelined import __version__
from pipelined.errors import BugError, Category, RecordError, TransientError
from pipelined.messages.attachments import unsigned
from pipelined.messages.codec import encode, iso_ms, iso_now
from pipelined.messages.task import ERROR_MESSAGE_LIMIT, DownloadTask, Result, Status
from pipelined.stages.contract import Headers, Output, Record, Stream

__all__ = [
    "ATTEMPT",
    "HOST_BUSY",
    "NOT_BEFORE",
    "Envelope",
    "deferrals",
    "failed_result",
    "host_busy",
    "passed_on",
    "retry",
    "stuck",
    "unexpected",
]

#: Headers of a retried task: how many attempts it has behind it, and when it is due (ms since the epoch).
ATTEMPT = "attempt"
NOT_BEFORE = "not_before"
#: The code of a task whose turn has not come: its host works, so it may be put off any number of times.
HOST_BUSY = "host_busy"
_REASON_LIMIT = 1024


def unexpected(error: Exception) -> BugError:
    """The error of a record that met an exception nobody expected."""
    bug = BugError("unexpected", f"{type(error).__name__}: {error}")
    bug.__cause__ = error
    return bug


def host_busy(host: str) -> TransientError:
    """The error of a task that others of its host would keep waiting for too long."""
    return TransientError(
        HOST_BUSY,
        f"{host} is slow, and enough tasks wait for it already; this one is put off to hold up no other host",
        attempted=False,
    )


def stuck(*, attempted: bool) -> TransientError:
    """The error of a record that was given up because it had been in hand for too long."""
    return TransientError(
        "stuck", "in hand for too long, so it was given up here to hold up no others", attempted=attempted
    )


def passed_on(record: Record) -> Headers:
    """The headers that go on with a record: its trace context. The others speak of one attempt."""
    return [
        (name, value) for name, value in record.headers if name in {"trace_id", "source", "first_failed_at"}
    ]


class Envelope:
    """Makes dead letters for one worker: the original bytes, and in the headers all that is known."""

    def __init__(self, stage: str, group: str, host: str) -> None:
        self._stage = stage
        self._fixed: Headers = [
            ("dlq_stage", stage.encode()),
            ("dlq_group", group.encode()),
            ("dlq_host", f"{host}:{os.getpid()}".encode()),
            ("dlq_version", __version__.encode()),
        ]

    def dead_letter(
        self,
        stream: str,
        record: Record,
        error: RecordError,
        task: DownloadTask | None = None,
        value: bytes | None = None,
    ) -> Output:
        """The dead letter of a record; ``value`` stands for its bytes where it led to several tasks."""
        fingerprint = hashlib.blake2b(
            f"{self._stage} {error.category} {error.code}".encode(), digest_size=6
        ).hexdigest()
        cause = error.__cause__ if error.__cause__ is not None else error
        headers: Headers = passed_on(record) + self._fixed
        headers += [
            ("dlq_origin_topic", record.partition.topic.encode()),
            ("dlq_origin_partition", b"%d" % record.partition.number),
            ("dlq_origin_offset", b"%d" % record.offset),
            ("dlq_origin_timestamp", iso_ms(record.timestamp).encode() if record.timestamp > 0 else b""),
            ("dlq_category", error.category.encode()),
            ("dlq_code", error.code.encode()),
            ("dlq_error_type", type(cause).__name__.encode()),
            ("dlq_message", str(error)[:_REASON_LIMIT].encode("utf-8", "replace")),
            ("dlq_fingerprint", fingerprint.encode()),
            ("dlq_failed_at", iso_now().encode()),
        ]
        if error.http_status is not None:
            headers.append(("dlq_http_status", b"%d" % error.http_status))
        if task is not None:
            headers.append(("attachment_id", task.attachment_id.encode()))
            headers.append(("dlq_attempt", b"%d" % task.retry_count))
        return Output(stream, record.key, record.value if value is None else value, headers)


def failed_result(
    record: Record, task: DownloadTask, error: RecordError, *, at_ingest: bool = False
) -> Output:
    """The result of an attachment that is given up."""
    permanent = error.category is not Category.TRANSIENT and error.category is not Category.BUG
    result = Result.of(
        task,
        attachment_url=unsigned(task.attachment_url),
        status=Status.FAILED_PERMANENT if permanent else Status.FAILED,
        created_at=iso_now(),
    )
    result.http_status = error.http_status
    result.error_category = str(error.category)
    result.error_message = str(error)[:ERROR_MESSAGE_LIMIT]
    result.expired_at_ingest = (error.code == "expired") if at_ingest else None
    return Output(Stream.RESULTS, record.key, encode(result), passed_on(record))


def deferrals(task: DownloadTask) -> int:
    """How often the task was put off without an attempt."""
    count = task.metadata.get("deferrals", 0)
    return count if isinstance(count, int) else 0


def retry(
    record: Record, task: DownloadTask, error: RecordError, tier: int, delay: float, *, put_off: bool = False
) -> Output:
    """The task once more: in the retry topic of ``tier``, due in ``delay`` seconds; at once where that is 0.

    One that is only ``put_off`` uses up no attempt. ``delay`` may be longer than the tier's.
    """
    now_ms = time.time_ns() // 1_000_000
    due_ms = now_ms + round(delay * 1000)
    headers = passed_on(record)
    if record.header("first_failed_at") is None:
        headers.append(("first_failed_at", iso_ms(now_ms).encode()))
    attempt = task.retry_count + (not put_off)
    headers.append((ATTEMPT, b"%d" % attempt))
    if delay > 0:
        headers.append((NOT_BEFORE, b"%d" % due_ms))
    again = DownloadTask(**{name: getattr(task, name) for name in DownloadTask.__struct_fields__})
    again.retry_count = attempt
    again.metadata = task.metadata | {
        "last_error": str(error)[:ERROR_MESSAGE_LIMIT],
        "error_category": str(error.category),
        "error_code": error.code,
        "retry_at": iso_ms(due_ms),
        "deferrals": deferrals(task) + (put_off and error.code != HOST_BUSY),
    }
    return Output(
        Stream.RETRY if delay > 0 else Stream.PENDING, record.key, encode(again), headers, tier=tier
    )

from __future__ import annotations

import os

import msgspec
import pytest

from pipelined import __version__
from pipelined.errors import BugError, Category, PermanentError, PoisonError, TransientError
from pipelined.messages.task import DownloadTask, Result
from pipelined.stages.contract import Headers, Stream
from pipelined.stages.failures import Envelope, failed_result, retry
from records import ARRIVED, HOST, P1, TRACE, headers_of, record, task

ENVELOPE = Envelope("download", "t.download", "host-1")
CONTEXT: Headers = [("trace_id", TRACE.encode()), ("source", b"eventhub"), ("line", b"7")]
CATEGORY_OF_RESULT = {
    Category.TRANSIENT: "failed",
    Category.BUG: "failed",
    Category.PERMANENT: "failed_permanent",
    Category.POISON: "failed_permanent",
}


def test_a_dead_letter_has_the_original_bytes_and_says_everything_in_its_headers() -> None:
    given = record(b"\xff\x00raw", 41, P1, key=b"k", headers=CONTEXT)
    error = TransientError("http_503", "the host answered 503", http_status=503)
    letter = ENVELOPE.dead_letter(Stream.DLQ, given, error, task(retry_count=4))
    assert (letter.stream, letter.key, letter.value) == (Stream.DLQ, b"k", b"\xff\x00raw")
    told = headers_of(letter)
    assert len(told) == len(letter.headers), "each header once"
    assert len(told.pop("dlq_fingerprint")) == 12
    assert told.pop("dlq_failed_at").endswith("Z")
    assert told == {
        "trace_id": TRACE,
        "source": "eventhub",
        "attachment_id": "a1",
        "dlq_stage": "download",
        "dlq_group": "t.download",
        "dlq_host": f"host-1:{os.getpid()}",
        "dlq_version": __version__,
        "dlq_origin_topic": "t.in",
        "dlq_origin_partition": "1",
        "dlq_origin_offset": "41",
        "dlq_origin_timestamp": "2026-01-05T14:22:31.480Z",
        "dlq_category": "transient",
        "dlq_code": "http_503",
        "dlq_error_type": "TransientError",
        "dlq_message": "the host answered 503",
        "dlq_http_status": "503",
        "dlq_attempt": "4",
    }


def test_failures_of_one_kind_share_a_fingerprint_and_others_do_not() -> None:
    def fingerprint(code: str, text: str) -> str:
        return headers_of(ENVELOPE.dead_letter(Stream.DLQ, record(), PoisonError(code, text)))[
            "dlq_fingerprint"
        ]

    assert fingerprint("a", "x") == fingerprint("a", "y")
    assert fingerprint("a", "x") != fingerprint("b", "x")


def test_a_bug_names_the_exception_behind_it() -> None:
    bug = BugError("unexpected", "x")
    bug.__cause__ = ZeroDivisionError("x")
    letter = ENVELOPE.dead_letter(Stream.DLQ, record(), bug)
    assert headers_of(letter)["dlq_error_type"] == "ZeroDivisionError"


def test_a_long_message_is_cut_and_a_broken_one_is_readable() -> None:
    letter = ENVELOPE.dead_letter(Stream.DLQ, record(), PoisonError("p", "x" * 5000))
    assert len(headers_of(letter)["dlq_message"]) == 1024
    letter = ENVELOPE.dead_letter(Stream.DLQ, record(timestamp=-1), PoisonError("p", "a\udc80b"))
    assert headers_of(letter)["dlq_message"] == "a?b"
    assert headers_of(letter)["dlq_origin_timestamp"] == ""


@pytest.mark.parametrize("error_type", [TransientError, BugError, PermanentError, PoisonError])
def test_a_result_says_failed_where_a_replay_may_help_and_failed_permanent_elsewhere(
    error_type: type[TransientError],
) -> None:
    output = failed_result(
        record(key=b"k", headers=CONTEXT), task(expires_at="e"), error_type("c", "m" * 600)
    )
    result = msgspec.json.decode(output.value, type=Result)
    assert result.status == CATEGORY_OF_RESULT[error_type.category]
    assert result.error_category == error_type.category
    assert result.error_message == "m" * 500
    assert result.attachment_url == f"{HOST}/x.pdf", "without its signature"
    assert (result.bytes_downloaded, result.sha256, result.expires_at) == (0, None, "e")
    assert (output.stream, output.key) == (Stream.RESULTS, b"k")
    assert headers_of(output) == {"trace_id": TRACE, "source": "eventhub"}


def test_the_first_failure_is_remembered_over_all_retries() -> None:
    first = retry(record(headers=CONTEXT), task(), TransientError("t", "x"), 0, 1)
    began = headers_of(first)["first_failed_at"]
    second = retry(
        record(headers=[*CONTEXT, ("first_failed_at", began.encode())]),
        task(),
        TransientError("t", "x"),
        0,
        1,
    )
    assert headers_of(second)["first_failed_at"] == began
    assert [name for name, _ in second.headers].count("first_failed_at") == 1


def test_a_retry_carries_the_task_whole_and_leaves_the_given_one_alone() -> None:
    given = task(estimate_version="2", expires_at="e", metadata={"mine": 1})
    output = retry(record(), given, TransientError("t", "x" * 900), 1, 5)
    again = msgspec.json.decode(output.value, type=DownloadTask)
    assert (given.retry_count, given.metadata) == (0, {"mine": 1})
    assert (again.retry_count, again.metadata["mine"]) == (1, 1)
    assert len(again.metadata["last_error"]) == 500
    again.retry_count, again.metadata = 0, {"mine": 1}
    assert again == given


def test_the_time_in_the_metadata_is_the_time_in_the_header() -> None:
    output = retry(record(timestamp=ARRIVED), task(), TransientError("t", "x"), 0, 60)
    again = msgspec.json.decode(output.value, type=DownloadTask)
    due = int(headers_of(output)["not_before"])
    assert again.metadata["retry_at"].endswith(f".{due % 1000:03}Z")

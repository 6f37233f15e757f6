from __future__ import annotations

import random
import time
from typing import Any

import msgspec
import pytest

from pipelined.config.tree import Config, Retry
from pipelined.errors import (
    AuthError,
    BugError,
    DependencyError,
    PermanentError,
    PoisonError,
    RecordError,
    TransientError,
)
from pipelined.messages.task import DownloadTask, Result
from pipelined.stages.contract import Done, Failed, Output, Stream
from pipelined.stages.failures import Envelope, host_busy
from pipelined.workers.routing import Hold, Routed, Router
from records import P1, headers_of, record, task

ENVELOPE = Envelope("download", "t.download", "h1")
DELAYS = (300.0, 600.0, 1200.0, 2400.0)


def router(**retry: Any) -> Router:
    return Router(Config(retry=Retry(**retry)), ENVELOPE, Stream.DLQ, random.Random(1))


def routed(error: RecordError, of: DownloadTask | None = None, **retry: Any) -> Routed:
    found = router(**retry).route(Failed(record(b"raw", 7, key=b"k"), error, of))
    assert isinstance(found, Routed)
    return found


def retried(error: RecordError, of: DownloadTask, **retry: Any) -> tuple[Output, DownloadTask, float]:
    """The one output of a retry, the task it carries, and in how many seconds it is due."""
    now = time.time()
    found = routed(error, of, **retry)
    (output,) = found.outputs
    assert found.kind == "retried"
    not_before = headers_of(output).get("not_before")
    due = 0.0 if not_before is None else int(not_before) / 1000 - now
    return output, msgspec.json.decode(output.value, type=DownloadTask), due


def test_what_was_done_is_produced_as_it_is() -> None:
    output = Output(Stream.CACHED, b"k", b"v", [])
    routed = router().route(Done(record(), (output,), "duplicate"))
    assert not isinstance(routed, Hold)
    assert (routed.outputs, routed.kind) == ((output,), "duplicate")


@pytest.mark.parametrize("error", [AuthError("a", "refused"), DependencyError("d", "down")])
def test_what_is_not_the_records_fault_makes_the_stage_pause_and_the_record_wait(error: RecordError) -> None:
    of = record()
    for _ in range(20):
        assert router().route(Failed(of, error, task(retry_count=99))) == Hold(of, error, pause=True)


@pytest.mark.parametrize(("count", "tier"), [(0, 0), (1, 1), (2, 2), (3, 3)])
def test_a_transient_failure_goes_to_the_next_tier_and_is_never_due_before_its_delay(
    count: int, tier: int
) -> None:
    output, again, due = retried(TransientError("t", "slow", http_status=503), task(retry_count=count))
    assert (output.stream, output.tier, output.key) == (Stream.RETRY, tier, b"k")
    assert again.retry_count == count + 1
    assert headers_of(output)["attempt"] == str(count + 1)
    assert DELAYS[tier] - 0.1 <= due <= DELAYS[tier] * 1.1 + 0.1
    assert again.metadata["error_code"] == "t"
    assert again.metadata["error_category"] == "transient"
    assert again.metadata["last_error"] == "slow"


def test_more_attempts_than_tiers_stay_in_the_last_tier() -> None:
    output, _, due = retried(TransientError("t", "x"), task(retry_count=7), max_attempts=10)
    assert output.tier == 3
    assert due >= DELAYS[3] - 0.1


def test_the_jitter_only_lengthens_a_delay() -> None:
    dues = {
        round(retried(TransientError("t", "x"), task(), jitter=0.5, delays_s=(100.0 + n,))[2] - n, 1)
        for n in range(1)
    }
    assert all(99.9 <= due <= 150.1 for due in dues)
    _, _, exact = retried(TransientError("t", "x"), task(), jitter=0.0)
    assert exact == pytest.approx(300, abs=0.5)


def test_after_the_last_attempt_comes_a_dead_letter_with_the_original_bytes_and_a_failed_result() -> None:
    error = TransientError("http_503", "still not", http_status=503)
    found = routed(error, task(retry_count=4))
    assert found.kind == "dead"
    letter, result = found.outputs
    assert (letter.stream, letter.value, letter.key) == (Stream.DLQ, b"raw", b"k")
    assert headers_of(letter)["dlq_attempt"] == "4"
    assert headers_of(letter)["dlq_code"] == "http_503"
    told = msgspec.json.decode(result.value, type=Result)
    assert (result.stream, told.status, told.retry_count, told.http_status) == (
        Stream.RESULTS,
        "failed",
        4,
        503,
    )


def test_without_any_retry_tier_a_transient_failure_is_final() -> None:
    assert routed(TransientError("t", "x"), task(), delays_s=()).kind == "dead"


@pytest.mark.parametrize(("asked", "tier"), [(10, 0), (300, 0), (301, 1), (1000, 2), (2400, 3), (9999, 3)])
def test_a_server_that_asks_for_more_time_gets_the_first_tier_that_is_long_enough(
    asked: float, tier: int
) -> None:
    output, _, due = retried(TransientError("http_429", "x", retry_after=asked), task())
    assert output.tier == tier
    assert due >= DELAYS[tier] - 0.1


@pytest.mark.parametrize("asked", [2401, 86_400])
def test_a_server_that_asks_for_more_than_the_longest_tier_is_left_alone_for_so_long(asked: float) -> None:
    output, _, due = retried(TransientError("http_429", "x", retry_after=asked), task())
    assert output.tier == 3
    assert asked - 0.1 <= due <= asked * 1.1 + 0.1


def test_a_retry_that_is_wanted_at_once_goes_back_to_pending_and_uses_up_an_attempt() -> None:
    output, again, due = retried(TransientError("gone", "x", retry_after=0), task(retry_count=1))
    assert (output.stream, due, again.retry_count) == (Stream.PENDING, 0, 2)
    assert routed(TransientError("gone", "x", retry_after=0), task(retry_count=4)).kind == "dead"


def test_a_task_that_was_never_tried_uses_up_no_attempt() -> None:
    error = TransientError("breaker", "open", retry_after=30, attempted=False)
    output, again, _ = retried(error, task(retry_count=4))
    assert output.stream == Stream.RETRY
    assert again.retry_count == 4
    assert again.metadata["deferrals"] == 1


def test_a_task_that_is_never_tried_is_put_off_only_so_often() -> None:
    error = TransientError("breaker", "open", retry_after=30, attempted=False)
    current, rounds = task(), 0
    while (found := routed(error, current)).kind == "retried":
        current = msgspec.json.decode(found.outputs[0].value, type=DownloadTask)
        rounds += 1
        assert rounds < 100, "put off for ever"
    assert rounds == 24  # 20 times without an attempt, then as often as any other
    assert found.kind == "dead"


def test_a_task_of_a_busy_host_is_put_off_any_number_of_times_and_counts_as_never_put_off() -> None:
    current = task(metadata={"deferrals": 20})
    for _ in range(50):
        output, current, due = retried(host_busy("h.example"), current)
        assert (output.tier, current.retry_count, current.metadata["deferrals"]) == (0, 0, 20)
        assert due >= DELAYS[0] - 0.1


def test_what_is_wanted_at_once_and_was_not_even_tried_uses_up_no_attempt() -> None:
    error = TransientError("cache_file_missing", "x", retry_after=0, attempted=False)
    output, again, _ = retried(error, task(retry_count=4))
    assert (output.stream, again.retry_count, again.metadata["deferrals"]) == (Stream.PENDING, 4, 1)
    assert routed(error, task(retry_count=4, metadata={"deferrals": 20})).kind == "dead"


@pytest.mark.parametrize("found", ["many", None, [1]])
def test_a_count_of_deferrals_that_is_no_number_counts_as_none(found: object) -> None:
    error = TransientError("breaker", "open", attempted=False)
    _, again, _ = retried(error, task(metadata={"deferrals": found, "kept": 1}))
    assert again.metadata["deferrals"] == 1
    assert again.metadata["kept"] == 1


@pytest.mark.parametrize(
    ("error", "category"),
    [(PermanentError("http_404", "gone", http_status=404), "permanent"), (PoisonError("p", "bad"), "poison")],
)
def test_a_permanent_failure_is_dead_at_once_with_a_failed_permanent_result(
    error: RecordError, category: str
) -> None:
    letter, result = routed(error, task()).outputs
    assert headers_of(letter)["dlq_category"] == category
    told = msgspec.json.decode(result.value, type=Result)
    assert (told.status, told.error_category, told.expired_at_ingest) == ("failed_permanent", category, None)


@pytest.mark.parametrize(
    "error", [PoisonError("p", "bad"), TransientError("t", "x"), PermanentError("x", "x")]
)
def test_a_record_without_a_task_becomes_a_dead_letter_and_no_result(error: RecordError) -> None:
    (letter,) = routed(error).outputs
    assert (letter.stream, letter.value) == (Stream.DLQ, b"raw")


def test_a_bug_is_met_as_often_as_configured_before_the_record_is_dead() -> None:
    one = router(bug_attempts=3)
    error = BugError("unexpected", "ValueError: x")
    first, other = record(offset=1), record(offset=1, partition=P1)
    assert one.route(Failed(first, error)) == Hold(first, error, pause=False)
    assert one.route(Failed(other, error)) == Hold(other, error, pause=False)
    assert one.route(Failed(first, error)) == Hold(first, error, pause=False)
    found = one.route(Failed(first, error))
    assert isinstance(found, Routed)
    assert found.kind == "dead"
    assert headers_of(found.outputs[0])["dlq_category"] == "bug"
    assert one.route(Failed(first, error)) == Hold(first, error, pause=False), "the count began anew"


def test_a_bug_with_a_task_ends_as_failed_so_that_it_can_be_replayed() -> None:
    _, result = routed(BugError("unexpected", "x"), task(), bug_attempts=1).outputs
    assert msgspec.json.decode(result.value, type=Result).status == "failed"

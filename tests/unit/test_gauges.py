from __future__ import annotations

import time

import pytest

from pipelined.errors import PoisonError, TransientError
from pipelined.stages.contract import Partition
from pipelined.stats import registry as metrics
from pipelined.workers.buffer import Buffer
from pipelined.workers.gauges import Gauges
from records import P0, record, slot


class Reader:
    """A member with two partitions and so much lag."""

    def __init__(self, lag: int) -> None:
        self.partitions = [P0, Partition("t.in", 1)]
        self.behind = lag
        self.asked: list[dict[Partition, int]] = []

    def lag(self, committed: dict[Partition, int]) -> int:
        self.asked.append(committed)
        return self.behind


def test_a_commit_counts_its_records_by_what_became_of_them() -> None:
    stats = slot()
    now = time.time()
    records = [record(offset=n, timestamp=round((now - 2) * 1000)) for n in range(3)]
    Gauges(stats).committed(records, {"done": 2, "dead": 1}, 5, 0.02)
    assert stats.counter(metrics.RECORDS_DONE, "done") == 2
    assert stats.counter(metrics.RECORDS_DONE, "dead") == 1
    assert stats.counter(metrics.RECORDS_DONE, "retried") == 0
    assert stats.counter(metrics.RECORDS_OUT) == 5
    assert stats.histogram(metrics.BATCH_RECORDS)[0] == 3
    assert stats.histogram(metrics.COMMIT_SECONDS)[0] == pytest.approx(0.02)
    ages, counts = stats.histogram(metrics.EVENT_AGE)
    assert sum(counts) == 3
    assert 5.9 <= ages < 30
    assert stats.gauge(metrics.LAST_PROGRESS) >= now


def test_the_ages_of_a_large_batch_are_sampled_and_still_count_as_all() -> None:
    stats = slot()
    Gauges(stats).committed([record(timestamp=0)] * 2000, {"done": 2000}, 0, 0.1)
    assert sum(stats.histogram(metrics.EVENT_AGE)[1]) == 2000


def test_a_record_from_the_future_has_no_negative_age() -> None:
    stats = slot()
    Gauges(stats).committed([record(timestamp=round(time.time() * 1000) + 90_000)], {"done": 1}, 0, 0)
    assert stats.histogram(metrics.EVENT_AGE)[0] == 0


def test_a_failure_counts_by_category_and_as_a_retry_or_a_dead_letter() -> None:
    stats = slot()
    gauges = Gauges(stats)
    gauges.failed(TransientError("t", "x"), "retried")
    gauges.failed(TransientError("t", "x"), "dead")
    gauges.failed(PoisonError("p", "x"), "dead")
    assert stats.counter(metrics.FAILURES, "transient") == 2
    assert stats.counter(metrics.FAILURES, "poison") == 1
    assert stats.counter(metrics.DEAD_LETTERS, "transient") == 1
    assert stats.counter(metrics.DEAD_LETTERS, "poison") == 1
    assert stats.counter(metrics.RETRIES) == 1


def test_fractions_of_a_millisecond_add_up() -> None:
    stats = slot()
    gauges = Gauges(stats)
    for _ in range(10):
        gauges.spent("work", 0.00025)
        gauges.spent("idle", 0.0001)
    assert stats.counter(metrics.LOOP_SECONDS, "work") == 2
    assert stats.counter(metrics.LOOP_SECONDS, "idle") == 1


def test_gauges_are_set_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 5000.0
    monkeypatch.setattr("pipelined.workers.gauges.time.monotonic", lambda: now)
    stats, reader, buffer = slot(), Reader(7), Buffer()
    buffer.add([record(timestamp=2500)])
    gauges = Gauges(stats)
    for _ in range(3):
        gauges.update(buffer, reader, {P0: 3})
    assert reader.asked == [{P0: 3}]
    assert stats.gauge(metrics.LAG) == 7
    assert stats.gauge(metrics.PARTITIONS) == 2
    assert stats.gauge(metrics.IN_FLIGHT) == 1
    assert stats.gauge(metrics.OLDEST) == 2.5
    reader.behind = 0
    buffer.clear()
    now += 1
    gauges.update(buffer, reader, {})
    assert [stats.gauge(m) for m in (metrics.LAG, metrics.IN_FLIGHT, metrics.OLDEST)] == [0, 0, 0]


def test_having_nothing_to_do_is_progress_and_having_lag_is_not() -> None:
    stats = slot()
    Gauges(stats).update(Buffer(), Reader(1), {})
    assert stats.gauge(metrics.LAST_PROGRESS) == 0
    Gauges(stats).update(Buffer(), Reader(0), {})
    assert stats.gauge(metrics.LAST_PROGRESS) > 0

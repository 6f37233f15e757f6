from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handclock import Clock
from pipelined.config.work import Breaker, Retry
from pipelined.errors import AuthError, DependencyError
from pipelined.stages.contract import Partition
from pipelined.stats import registry as metrics
from pipelined.workers.brakes import DlqBreaker, Pause
from records import P0, P1, slot

DOWN = DependencyError("store_down", "the store does not answer")


def wait_out(pause: Pause, clock: Clock) -> float:
    """How long the pause lasts, to a hundredth of a second."""
    began = clock.now
    while pause.active:
        clock.now += 0.01
    return round(clock.now - began, 1)


def test_a_pause_doubles_while_the_failure_goes_on_up_to_a_minute() -> None:
    clock = Clock()
    pause = Pause(Retry(pause_s=5), slot(), clock)
    lengths = []
    for _ in range(6):
        pause.begin(DOWN)
        lengths.append(wait_out(pause, clock))
    assert lengths == [5, 10, 20, 40, 60, 60]


def test_several_failures_of_one_batch_make_one_pause() -> None:
    clock, stats = Clock(), slot()
    pause = Pause(Retry(pause_s=5), stats, clock)
    for _ in range(50):
        pause.begin(DOWN)
    assert stats.counter(metrics.PAUSES) == 1
    assert wait_out(pause, clock) == 5


def test_a_success_makes_the_next_pause_a_first_one_again() -> None:
    clock, stats = Clock(), slot()
    pause = Pause(Retry(pause_s=5), stats, clock)
    for _ in range(3):
        pause.begin(DOWN)
        wait_out(pause, clock)
    assert stats.gauge(metrics.PAUSED) == 1
    pause.over()
    assert stats.gauge(metrics.PAUSED) == 0
    pause.begin(DOWN)
    assert wait_out(pause, clock) == 5


def test_a_success_of_what_was_under_way_does_not_end_a_pause() -> None:
    clock, stats = Clock(), slot()
    pause = Pause(Retry(pause_s=5), stats, clock)
    pause.begin(DOWN)
    pause.over()
    assert pause.active
    assert stats.gauge(metrics.PAUSED) == 1


def test_a_failure_is_an_error_in_the_log_once_and_a_warning_while_it_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = Clock()
    pause = Pause(Retry(pause_s=5), slot(), clock)
    with caplog.at_level(logging.INFO, "pipelined.workers"):
        for error in (DOWN, DOWN, AuthError("token", "refused")):
            pause.begin(error)
            wait_out(pause, clock)
        pause.over()
        pause.over()
    assert [entry.levelname for entry in caplog.records] == ["ERROR", "WARNING", "ERROR", "INFO"]
    assert "the store does not answer" in caplog.messages[0]


def breaker(run: int = 5, share: float = 0.5, window: int = 10) -> DlqBreaker:
    return DlqBreaker(Breaker(dlq_run=run, dlq_share=share, dlq_window=window), slot())


def feed(one: DlqBreaker, kinds: str, partition: Partition = P0) -> bool:
    """``d`` is a dead letter, anything else is not."""
    one.record((partition, "dead" if kind == "d" else "done") for kind in kinds)
    return one.tripped


def test_a_run_of_dead_letters_on_one_partition_trips_the_breaker() -> None:
    one = breaker(run=5, window=100)
    assert not feed(one, "dddd")
    assert feed(one, "d")


def test_one_success_ends_a_run_and_two_partitions_do_not_add_up() -> None:
    one = breaker(run=5, share=1, window=100)
    for _ in range(20):
        assert not feed(one, "dddd.")
    for _ in range(4):
        assert not feed(one, "d")
        assert not feed(one, "d", P1)
    assert feed(one, "d", P1)


def test_too_large_a_share_of_the_window_trips_it_without_any_run() -> None:
    one = breaker(run=99, share=0.5, window=10)
    assert not feed(one, "d.d.d.d.d.")  # exactly half is allowed
    assert feed(one, "dd")


def test_the_share_is_taken_over_a_full_window_only() -> None:
    one = breaker(run=99, share=0.5, window=10)
    assert not feed(one, "d.dddd.dd")
    assert feed(one, "d")


def test_what_has_left_the_window_counts_no_more() -> None:
    one = breaker(run=99, share=0.5, window=10)
    assert not feed(one, "ddddd" + "." * 5)
    assert not feed(one, "." * 10 + "ddddd" + "." * 10)
    assert feed(one, "dddddd")


def test_retries_and_duplicates_are_no_dead_letters() -> None:
    one = breaker()
    one.record((P0, kind) for kind in ["retried", "duplicate", "done"] * 50)
    assert not one.tripped


def test_tripping_is_told_once_with_numbers_and_what_to_do(caplog: pytest.LogCaptureFixture) -> None:
    stats = slot()
    one = DlqBreaker(Breaker(dlq_run=3, dlq_window=10), stats)
    feed(one, ".ddddddd")
    (entry,) = caplog.records
    assert entry.levelname == "CRITICAL"
    assert "3 of the last 4 records of t.in/0 were dead letters, 3 in a row" in entry.getMessage()
    assert "restart this worker" in entry.getMessage()
    assert stats.gauge(metrics.DLQ_BREAKER) == 1


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 15)), max_size=20))
def test_clean_batches_count_as_if_each_record_were_noted(batches: list[tuple[int, int]]) -> None:
    settings = Breaker(dlq_run=12, dlq_share=0.5, dlq_window=20)
    one_by_one, in_bulk = DlqBreaker(settings, slot()), DlqBreaker(settings, slot())
    for clean, dead in batches:
        one_by_one.record([(P0, "done")] * clean)
        if clean:
            in_bulk.clean({P0: clean})
        for breaker in (one_by_one, in_bulk):
            breaker.record([(P0, "dead")] * dead)
        assert one_by_one.tripped == in_bulk.tripped

"""The waits between restarts, and the timers, on clocks of the test."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from handclock import Clock
from pipelined.config.tree import Supervisor
from pipelined.supervisor.backoff import Backoff
from pipelined.supervisor.timers import Timers


def test_the_wait_doubles_up_to_its_maximum() -> None:
    backoff = Backoff(Supervisor(backoff_first_s=0.5, backoff_max_s=60), spread=lambda: 1.0)
    waits = [backoff.failed(float(now), healthy_for=0) for now in range(10)]
    assert waits == [0.5, 1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_the_wait_varies_by_a_fifth_to_either_side() -> None:
    waits = [Backoff(Supervisor(backoff_first_s=1.0)).failed(0, 0) for _ in range(500)]
    assert all(wait is not None and 0.8 <= wait <= 1.2 for wait in waits)
    assert max(filter(None, waits)) - min(filter(None, waits)) > 0.3


def test_after_a_healthy_time_there_is_no_wait_and_the_next_one_is_the_first_again() -> None:
    backoff = Backoff(Supervisor(backoff_first_s=1, healthy_s=60), spread=lambda: 1.0)
    waits = [backoff.failed(0, 0), backoff.failed(1, 59), backoff.failed(2, 60), backoff.failed(3, 0)]
    assert waits == [1, 2, 0, 1]


def test_a_worker_is_given_up_after_so_many_restarts_within_the_window() -> None:
    backoff = Backoff(Supervisor(max_restarts=3, restart_window_s=100))
    assert all(backoff.failed(now, 1e9) is not None for now in (0, 50, 99))
    assert backoff.failed(99.5, 1e9) is None
    assert backoff.failed(100.5, 1e9) is not None, "the first one has left the window"


def test_an_operators_start_begins_anew() -> None:
    backoff = Backoff(Supervisor(max_restarts=1, backoff_first_s=1), spread=lambda: 1.0)
    assert [backoff.failed(0, 0), backoff.failed(1, 0)] == [1, None]
    backoff.forget()
    assert backoff.failed(2, 0) == 1


def test_timers_call_what_is_due_and_nothing_else() -> None:
    clock, calls = Clock(100.0), list[str]()
    timers = Timers(clock)
    assert timers.wait() is None
    timers.set("late", 2.0, lambda: calls.append("late"))
    timers.set("soon", 5.0, lambda: calls.append("replaced"))
    timers.set("soon", 1.0, lambda: calls.append("soon"))
    timers.set("never", 0.5, lambda: calls.append("never"))
    timers.cancel("never")
    assert timers.wait() == pytest.approx(1.0)
    clock.now += 1.5
    assert timers.wait() == 0
    timers.run()
    assert calls == ["soon"]
    clock.now += 1
    timers.run()
    assert calls == ["soon", "late"]
    assert timers.wait() is None


def test_a_timer_cancelled_or_set_anew_by_another_of_the_same_round_does_not_run() -> None:
    clock, calls = Clock(100.0), list[str]()
    timers = Timers(clock)

    def first() -> None:
        timers.cancel("cancelled")
        timers.set("moved", 1.0, lambda: calls.append("moved"))

    timers.set("first", 0.1, first)
    timers.set("cancelled", 0.2, lambda: calls.append("cancelled"))
    timers.set("moved", 0.2, lambda: calls.append("too early"))
    clock.now += 0.5
    timers.run()
    assert calls == []
    clock.now += 1
    timers.run()
    assert calls == ["moved"]


def test_the_time_in_which_the_whole_process_was_frozen_does_not_count() -> None:
    clock, calls = Clock(100.0), list[str]()
    timers = Timers(clock)
    timers.set("hang", 10.0, lambda: calls.append("hang"))
    timers.set("later", 40.0, lambda: calls.append("later"))
    clock.now += 3610
    timers.run()
    assert calls == [], "the workers were frozen too, and need a moment to show that they live"
    clock.now += 1.1
    timers.run()
    assert calls == ["hang"]
    assert timers.wait() == pytest.approx(29.9)


def test_what_takes_long_leaves_the_rest_to_the_next_turn_in_the_order_of_the_deadlines() -> None:
    clock, calls = Clock(100.0), list[str]()
    timers = Timers(clock)

    def takes_long(name: str) -> Callable[[], None]:
        def call() -> None:
            calls.append(name)
            clock.now += 0.003
            timers.set(name, 0.0, call)  # and wants to be called again at once

        return call

    for name, delay in (("third", 0.3), ("first", 0.1), ("second", 0.2)):
        timers.set(name, delay, takes_long(name))
    clock.now += 1
    for _ in range(4):
        timers.run()
        assert timers.wait() == 0
    assert calls == ["first", "second", "third", "first", "second", "third", "first", "second"]


def test_what_is_to_be_alone_has_a_turn_of_its_own_and_nobody_waits_for_it_for_ever() -> None:
    clock, calls = Clock(100.0), list[str]()
    timers = Timers(clock)

    def notes(name: str, *, again: bool = False) -> Callable[[], None]:
        def call() -> None:
            calls.append(name)
            if again:
                timers.set(name, 0.0, call, alone=True)

        return call

    timers.set("first", 0.1, notes("first"))
    timers.set("fork", 0.2, notes("fork", again=True), alone=True)
    timers.set("third", 0.3, notes("third"))
    timers.set("fourth", 0.4, notes("fourth"))
    clock.now += 1
    turns = []
    for _ in range(4):
        timers.run()
        turns.append(calls[:])
        calls.clear()
    assert turns == [["first"], ["fork"], ["third", "fourth"], ["fork"]]

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelined.fetch.turns import SLOW_S, Turns

PLACES = 10
NEVER = 1e9


class Bench:
    """Transfers that take as long as the test says, on a clock that goes when told to."""

    def __init__(self, takes: dict[str, float], share: float = 0.5, window: int = 1000) -> None:
        self.now = 0.0
        self.takes = takes
        self.done: Counter[str] = Counter()
        self.held: Counter[str] = Counter()
        self.turns = Turns[str](PLACES, share, window=window, elsewhere_s=300, clock=lambda: self.now)
        self._numbers = itertools.count()
        self._ends: list[tuple[float, int, str]] = []

    def add(self, host: str, count: int = 1) -> None:
        for _ in range(count):
            self.turns.add(host, host)

    def begin(self) -> None:
        while (host := self.turns.next()) is not None:
            number = next(self._numbers)
            self.turns.begun(host, number)
            self.held[host] += 1
            assert self.held.total() <= self.turns.most
            heapq.heappush(self._ends, (self.now + self.takes[host], number, host))

    def run(self, seconds: float, each: Callable[[], object] = lambda: None) -> None:
        """Let time pass; ``each`` is called when no more may begin."""
        until = self.now + seconds
        while self.now < until:
            self.begin()
            each()
            # As the stage does: it looks at least every quarter of a second.
            self.now = min(until, self.now + 0.25, *(end for end, _, _ in self._ends[:1]))
            while self._ends and self._ends[0][0] <= self.now:
                _, number, host = heapq.heappop(self._ends)
                self.turns.ended(number)
                self.held[host] -= 1
                self.done[host] += 1


def test_a_host_that_answers_holds_every_place_when_it_is_alone() -> None:
    bench = Bench({"a": 0.1})
    bench.add("a", 1000)
    bench.begin()
    assert bench.held["a"] == PLACES // 2, "it has not answered yet"
    bench.run(0.11)
    bench.begin()
    assert bench.held["a"] == PLACES


def test_a_host_that_is_slow_and_alone_comes_to_hold_every_place_too() -> None:
    bench = Bench({"a": 30.0})
    bench.add("a", 100)
    bench.run(SLOW_S + 0.5)
    assert bench.held["a"] == PLACES


@pytest.mark.parametrize("seconds", [0.5, 1.5, 5.0, 60.0, NEVER])
def test_a_quick_host_keeps_its_rate_beside_one_that_takes_its_time(seconds: float) -> None:
    bench = Bench({"slow": seconds, "quick": 0.05})
    bench.add("slow", 900)
    bench.add("quick", 2000)
    bench.run(20)
    # Half of the places for ever, and for a moment at the start no more than they.
    assert bench.done["quick"] >= 0.95 * 20 / 0.05 * PLACES / 2
    served = bench.done["slow"] + bench.held["slow"]
    assert served >= PLACES / 2 * max(1, 0.9 * 20 / seconds), "nor is the slow one starved"


def test_a_host_that_falls_silent_with_all_places_leaves_some_of_them_a_moment_later() -> None:
    bench = Bench({"silent": 0.05, "other": 0.05})
    bench.add("silent", 1000)
    bench.run(1)
    bench.takes["silent"] = NEVER
    bench.run(0.5)
    assert bench.held["silent"] == PLACES
    bench.add("other", 1000)
    bench.run(SLOW_S + 0.1)
    before = bench.done["other"]
    bench.run(1)
    assert bench.done["other"] - before >= 0.9 * PLACES / 2 / 0.05
    assert bench.held["silent"] == PLACES, "it gets no more places"


def test_two_dead_hosts_leave_places_to_a_third() -> None:
    bench = Bench({"dead1": NEVER, "dead2": NEVER, "good": 0.05})
    bench.add("dead1", 100)
    bench.add("dead2", 100)
    bench.run(SLOW_S + 1)
    bench.add("good", 1000)
    bench.run(2)
    assert bench.done["good"] >= 100


def test_one_long_transfer_costs_the_others_no_place() -> None:
    bench = Bench({"a": 60.0})
    bench.add("a")
    bench.run(0.1)
    bench.takes["a"] = 0.1
    bench.add("a", 2000)
    bench.run(SLOW_S + 0.5)
    assert bench.held["a"] == PLACES + 1
    before = bench.done["a"]
    bench.run(5)
    assert bench.done["a"] - before == pytest.approx(5 / 0.1 * PLACES, rel=0.05)


def test_a_transfer_that_was_cancelled_is_no_answer() -> None:
    bench = Bench({"a": NEVER})
    bench.add("a", 100)
    bench.begin()
    for number in range(PLACES // 2):
        bench.turns.ended(number, cancelled=True)
        bench.held["a"] -= 1
    bench.begin()
    assert bench.held["a"] == PLACES // 2


def test_a_hosts_jobs_begin_in_their_order() -> None:
    turns = Turns[int](PLACES, 1.0, window=100)
    for job in range(20):
        turns.add("a", job)
    assert [turns.next() for _ in range(20)] == list(range(20))
    assert turns.next() is None
    assert len(turns) == 0


def test_of_a_dead_host_that_fills_the_window_all_but_its_share_is_put_off() -> None:
    bench = Bench({"dead": NEVER}, window=400)
    bench.add("dead", 400)
    put_off: list[str] = []
    bench.run(1, lambda: put_off.extend(bench.turns.surplus()))
    assert put_off == [], "it may still answer"
    bench.run(20, lambda: put_off.extend(bench.turns.surplus()))
    assert len(bench.turns) == 200
    assert len(put_off) == 400 - 200 - PLACES


def test_what_would_begin_sooner_here_than_after_its_time_in_a_retry_tier_stays() -> None:
    bench = Bench({"large": 4.0}, window=400)  # 10 in 4 seconds, 400 in 160
    put_off: list[str] = []

    def fill() -> None:
        bench.add("large", 400 - len(bench.turns))
        put_off.extend(bench.turns.surplus())

    bench.run(30, fill)
    assert put_off == []
    bench.takes["large"] = 20.0  # 10 in 20 seconds, 150 in 300: but 200 may wait in any case
    bench.run(100, fill)
    bench.add("large", 200)
    assert list(bench.turns.surplus())
    assert len(bench.turns) == pytest.approx(200, abs=60)


def test_the_newest_are_put_off() -> None:
    now = 0.0
    turns = Turns[int](1, 1.0, window=4, elsewhere_s=1, clock=lambda: now)
    for job in range(10):
        turns.add("a", job)
    assert turns.next() == 0
    turns.begun("a", 0)
    now = 100.0
    assert list(turns.surplus()) == [9, 8, 7, 6, 5]
    assert len(turns) == 4


def test_without_a_retry_tier_nothing_is_put_off() -> None:
    now = 0.0
    turns = Turns[int](1, 1.0, window=1, clock=lambda: now)
    for job in range(10):
        turns.add("a", job)
    turns.next()
    turns.begun("a", 0)
    now = 100.0
    assert list(turns.surplus()) == []


def test_dropped_jobs_never_begin() -> None:
    turns = Turns[int](PLACES, 1.0, window=100)
    for job in range(6):
        turns.add("even" if job % 2 == 0 else "odd", job)
    assert sorted(turns.drop(lambda job: job in (0, 2, 4, 5))) == [0, 2, 4, 5]
    assert len(turns) == 2
    assert [turns.next(), turns.next(), turns.next()] == [1, 3, None]


def test_ever_new_hosts_do_not_fill_the_memory() -> None:
    turns = Turns[int](PLACES, 0.5, window=100)
    turns.add("kept", 0)
    for number in range(1, 25_000):
        turns.add(f"h{number}", number)
        turns.drop(lambda job: job != 0)
    assert len(turns._hosts) <= 10_000
    assert turns.next() == 0


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("add"), st.integers(0, 3)),
            st.tuples(st.just("end"), st.integers(0, 20)),
            st.tuples(st.just("wait"), st.floats(0, 5)),
            st.tuples(st.just("drop"), st.integers(0, 3)),
        ),
        max_size=80,
    ),
    st.integers(1, 6),
    st.floats(0.01, 1),
)
def test_each_job_begins_once_or_is_dropped_and_no_more_run_than_may(
    steps: list[tuple[str, float]], places: int, share: float
) -> None:
    now = 0.0
    turns = Turns[tuple[str, int]](places, share, window=10, elsewhere_s=5, clock=lambda: now)
    jobs = itertools.count()
    waiting: set[tuple[str, int]] = set()
    running: dict[int, str] = {}
    numbers = itertools.count()
    for what, value in steps:
        if what == "add":
            job = (f"h{value:.0f}", next(jobs))
            turns.add(job[0], job)
            waiting.add(job)
        elif what == "end" and running:
            number = sorted(running)[int(value) % len(running)]
            del running[number]
            turns.ended(number)
        elif what == "wait":
            now += value
        elif what == "drop":
            for job in turns.drop(lambda job, host=f"h{value:.0f}": job[0] == host):  # type: ignore[misc]  # mypy does not infer a default's type
                waiting.remove(job)
        while (begun := turns.next()) is not None:
            waiting.remove(begun)
            number = next(numbers)
            turns.begun(begun[0], number)
            running[number] = begun[0]
        for job in turns.surplus():
            waiting.remove(job)
        assert len(turns) == len(waiting)
        assert len(running) <= turns.most
        if waiting and not running:
            raise AssertionError("something waits, and nothing is under way")

from __future__ import annotations

from handclock import Clock
from pipelined.config.tree import Breaker as Settings
from pipelined.fetch.breakers import Breaker, Breakers


def opened(clock: Clock) -> Breaker:
    breaker = Breaker(Settings(failures=3, open_s=30), clock)
    for _ in range(3):
        assert breaker.allow()
        breaker.failure()
    return breaker


def test_a_breaker_opens_after_failures_in_a_row_and_not_before() -> None:
    breaker = Breaker(Settings(failures=3, open_s=30), Clock())
    for _ in range(5):
        breaker.failure()
        breaker.failure()
        assert breaker.state == "closed"
        breaker.success()
    for _ in range(3):
        breaker.failure()
    assert breaker.state == "open"
    assert not breaker.allow()
    assert breaker.wait == 30


def test_an_open_breaker_lets_one_probe_through_after_its_time() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now += 29.9
    assert not breaker.allow()
    clock.now += 0.2
    assert breaker.state == "half-open"
    assert breaker.allow()
    assert not breaker.allow()


def test_a_probe_that_succeeds_closes_the_breaker() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now += 31
    assert breaker.allow()
    breaker.success()
    assert breaker.state == "closed"
    breaker.failure()
    assert breaker.allow()


def test_a_probe_that_fails_opens_the_breaker_again_at_once() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now += 31
    assert breaker.allow()
    breaker.failure()
    assert breaker.state == "open"
    assert breaker.wait == 30


def test_a_probe_that_never_reports_does_not_keep_the_breaker_half_open() -> None:
    clock = Clock()
    breaker = opened(clock)
    for _ in range(3):
        clock.now += 31
        assert breaker.allow()
        assert not breaker.allow()


def test_hosts_have_their_own_breakers() -> None:
    clock = Clock()
    breakers = Breakers(Settings(failures=1, open_s=30), clock)
    breakers.failure("a.example")
    assert not breakers.allow("a.example")
    assert breakers.wait("a.example") == 30
    assert breakers.allow("b.example")
    assert breakers.wait("b.example") == 0
    assert breakers.open_hosts() == ["a.example"]
    clock.now += 31
    assert breakers.allow("a.example")
    breakers.success("a.example")
    assert breakers.open_hosts() == []


def test_ever_new_failing_hosts_do_not_fill_the_memory() -> None:
    clock = Clock()
    breakers = Breakers(Settings(failures=1, open_s=30), clock)
    for number in range(10_000):
        breakers.failure(f"{number}.example")
    clock.now += 31
    breakers.failure("one.more.example")
    assert len(breakers._hosts) == 1

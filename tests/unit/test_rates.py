"""What the supervisor measures of each worker: records per second, and its share of a CPU."""

from __future__ import annotations

import os
import time

import pytest

from handclock import Clock
from pipelined.stats import registry
from pipelined.stats.rates import EVERY_S, Rates, cpu_seconds
from pipelined.stats.slots import SharedStats, WorkerState


@pytest.fixture
def stats() -> SharedStats:
    made = SharedStats({"download": 1})
    runs(made, os.getpid())
    return made


@pytest.fixture
def clock() -> Clock:
    return Clock()


def runs(stats: SharedStats, pid: int) -> None:
    stats.slot("download", 0).parent.write(
        state=WorkerState.RUNNING, pid=pid, restarts=0, last_exit=0, since=1.0, next_try=0.0
    )


def measured(stats: SharedStats) -> tuple[float, float, float] | None:
    return stats.slot("download", 0).parent.measured


def test_a_rate_is_known_from_the_second_look_on(stats: SharedStats, clock: Clock) -> None:
    rates = Rates(stats, clock)
    rates.look()
    assert measured(stats) is None
    stats.slot("download", 0).child.add(registry.RECORDS_IN, 10)
    stats.slot("download", 0).child.add(registry.RECORDS_OUT, 4)
    clock.now += EVERY_S
    rates.look()
    found = measured(stats)
    assert found is not None
    assert found[:2] == (10 / EVERY_S, 4 / EVERY_S)


def test_a_rate_covers_the_last_ten_seconds_and_falls_to_nothing(stats: SharedStats, clock: Clock) -> None:
    rates = Rates(stats, clock)
    rates.look()
    stats.slot("download", 0).child.add(registry.RECORDS_IN, 100)
    seen = []
    for _ in range(6):
        clock.now += EVERY_S
        rates.look()
        seen.append((measured(stats) or (-1.0,))[0])
    assert seen == [50.0, 25.0, pytest.approx(100 / 6), 12.5, 10.0, 0.0]


def test_another_process_is_measured_anew_and_one_that_ended_not_at_all(
    stats: SharedStats, clock: Clock
) -> None:
    rates = Rates(stats, clock)
    for pid, known in ((os.getpid(), False), (os.getpid(), True), (os.getppid(), False), (0, False)):
        runs(stats, pid)
        rates.look()
        clock.now += EVERY_S
        assert (measured(stats) is not None) is known
    runs(stats, os.getpid())
    assert measured(stats) is None, "what was measured of another process is not its own"


def test_the_share_of_a_cpu_is_that_of_the_process(stats: SharedStats) -> None:
    rates = Rates(stats)
    rates.look()
    before, began = cpu_seconds(os.getpid()), time.monotonic()
    assert before is not None
    while (cpu_seconds(os.getpid()) or 0.0) - before < 0.1:
        assert time.monotonic() - began < 30, "no time on a CPU in half a minute"
    rates.look()
    found = measured(stats)
    assert found is not None
    assert 5.0 / (time.monotonic() - began) < found[2] < 150


def test_a_process_that_has_ended_has_no_time_on_a_cpu() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    assert cpu_seconds(pid) is None

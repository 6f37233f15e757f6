from __future__ import annotations

import time

import pytest

from pipelined.stats.slots import SharedStats
from pipelined.stats.turns import TURN_METRICS


def test_the_longest_turn_and_the_slow_ones_are_kept() -> None:
    turns = SharedStats({"upload": 1}).turns
    turns.turned(2_000_000, 1_000_000)
    turns.turned(30_000_000, 500_000)
    turns.turned(10_000_001, 600_000)
    turns.forked(4_000_000)
    turns.forked(3_000_000)
    told = turns.told()
    assert 0 <= told.pop("silent_s") < 5
    assert told == {
        "turns": 3,
        "slow_turns": 2,
        "longest_ms": 30.0,
        "longest_cpu_ms": 1.0,
        "forks": 2,
        "longest_fork_ms": 4.0,
    }
    values = dict(zip((name for name, *_ in TURN_METRICS), turns.values(), strict=True))
    assert values["pipelined_supervisor_longest_turn_seconds"] == 0.03
    assert values["pipelined_supervisor_slow_turns_total"] == 2


def test_how_long_ago_the_loop_turned_is_known_once_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    turns = SharedStats({"upload": 1}).turns
    real = time.monotonic_ns
    monkeypatch.setattr(time, "monotonic_ns", lambda: real() + 23 * 10**9)
    assert turns.silent_s == 0
    monkeypatch.setattr(time, "monotonic_ns", real)
    turns.turned(1, 1)
    monkeypatch.setattr(time, "monotonic_ns", lambda: real() + 23 * 10**9)
    assert 23 <= turns.silent_s < 28
    turns.begin()
    assert turns.silent_s == 0, "another supervisor has this memory now"

from __future__ import annotations

import time

import pytest

from pipelined.config.tree import Config, Worker, Workers
from pipelined.stats import registry as metrics
from pipelined.stats.health import alive, ready
from pipelined.stats.slots import SharedStats, WorkerState

CONFIG = Config(workers=Workers(download=Worker(hang_s=10), retry_scheduler=Worker(hang_s=10)))


def put(stats: SharedStats, worker: str, state: WorkerState) -> None:
    stats.slot(worker, 0).parent.write(state=state, pid=1, restarts=0, last_exit=0, since=0.0, next_try=0.0)


@pytest.fixture
def stats() -> SharedStats:
    """Two workers that run and are ready."""
    made = SharedStats({"download": 1, "retry-scheduler": 1})
    for slot in made.slots:
        slot.child.begin(1)
        slot.child.ready()
        put(made, slot.worker, WorkerState.RUNNING)
    return made


def test_workers_that_work_are_alive_and_ready(stats: SharedStats) -> None:
    assert alive(CONFIG, stats) == ready(CONFIG, stats) == []


def test_a_loop_that_gives_no_sign_for_its_hang_timeout_is_not_alive(
    stats: SharedStats, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = time.monotonic_ns
    monkeypatch.setattr(time, "monotonic_ns", lambda: real() + 9 * 10**9)
    assert alive(CONFIG, stats) == []
    monkeypatch.setattr(time, "monotonic_ns", lambda: real() + 12 * 10**9)
    assert alive(CONFIG, stats)[0] == "download[0]: no sign of its work loop for 12 s"
    assert len(ready(CONFIG, stats)) == 2


def test_a_supervisor_whose_loop_does_not_turn_is_not_alive(
    stats: SharedStats, monkeypatch: pytest.MonkeyPatch
) -> None:
    stats.turns.turned(1, 1)
    real = time.monotonic_ns
    monkeypatch.setattr(time, "monotonic_ns", lambda: real() + 9 * 10**9)
    assert alive(CONFIG, stats) == []
    monkeypatch.setattr(time, "monotonic_ns", lambda: real() + 14 * 10**9)
    assert alive(CONFIG, stats)[0] == "supervisor: its loop has not turned for 14 s"


def test_a_worker_that_turns_and_commits_nothing_though_records_wait_is_not_alive(stats: SharedStats) -> None:
    child = stats.slot("download", 0).child
    child.set(metrics.LAST_PROGRESS, time.time() - 101)
    assert alive(CONFIG, stats) == [], "nothing waits"
    child.set(metrics.LAG, 5)
    assert alive(CONFIG, stats) == ["download[0]: nothing committed for 101 s with lag"]
    child.set(metrics.PAUSED, 1)
    assert alive(CONFIG, stats) == [], "it is paused, and that is told otherwise"
    child.set(metrics.PAUSED, 0)
    child.set(metrics.LAST_PROGRESS, time.time() - 90)
    assert alive(CONFIG, stats) == []


def test_tasks_that_wait_for_their_time_are_no_standstill(stats: SharedStats) -> None:
    child = stats.slot("retry-scheduler", 0).child
    child.set(metrics.LAG, 5)
    child.set(metrics.LAST_PROGRESS, time.time() - 9999)
    assert alive(CONFIG, stats) == []


@pytest.mark.parametrize("state", [s for s in WorkerState if s is not WorkerState.RUNNING])
def test_a_worker_that_does_not_run_is_not_ready_and_says_why(stats: SharedStats, state: WorkerState) -> None:
    put(stats, "download", state)
    assert ready(CONFIG, stats) == [f"download[0]: {state.name}"]
    assert alive(CONFIG, stats) == [], "whether it is restarted is the supervisor's business"


def test_what_keeps_a_running_worker_from_its_job_is_named(stats: SharedStats) -> None:
    child = stats.slot("download", 0).child
    child.set(metrics.PAUSED, 1)
    assert "paused" in ready(CONFIG, stats)[0]
    child.set(metrics.DLQ_BREAKER, 1)
    assert ready(CONFIG, stats) == ["download[0]: the DLQ breaker is open"]
    child.begin(2)
    assert ready(CONFIG, stats) == ["download[0]: not ready yet"]

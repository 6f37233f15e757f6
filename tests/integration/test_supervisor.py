"""The supervisor with real forked workers: order, readiness, restarts, hangs."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from supervised import Daemon, daemons, is_alive

from waiting import until

FLOW: dict[str, dict[str, Any]] = {"source": {}, "stage": {"processes": 2}, "sink": {}}


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Callable[..., Daemon]]:
    with daemons(tmp_path) as make:
        yield make


def test_sinks_start_first_and_each_type_waits_until_the_next_one_is_ready(
    daemon: Callable[..., Daemon],
) -> None:
    run = daemon({"source": {}, "stage": {"processes": 2, "waits": 0.2}, "sink": {"waits": 0.2}}).start()
    order = [(event["worker"], event["what"]) for event in run.events()]
    assert order[:2] == [("sink", "start"), ("sink", "ready")]
    assert sorted(order[2:6]) == [("stage", "ready")] * 2 + [("stage", "start")] * 2
    assert order[6:] == [("source", "start"), ("source", "ready"), ("daemon", "ready")]
    status = run.status()
    assert status["state"] == "running"
    assert status["pid"] == run.pid
    assert all(worker["ready"] and worker["heartbeat_age_s"] < 5 for worker in status["workers"])


def test_types_stop_along_the_flow_each_drained_before_the_next(daemon: Callable[..., Daemon]) -> None:
    run = daemon({"source": {"drains": 0.2}, "stage": {"processes": 2, "drains": 0.1}, "sink": {}}).start()
    assert run.stop() == 0
    order = [event["worker"] for event in run.events(what="stop") + run.events(what="end")]
    assert order == ["source", "stage", "stage", "sink"] * 2
    ends = {event["worker"]: event["t"] for event in run.events(what="end")}
    stops = {event["worker"]: event["t"] for event in reversed(run.events(what="stop"))}
    assert ends["source"] < stops["stage"]
    assert ends["stage"] < stops["sink"]
    assert not any(map(is_alive, run.pids()))


def test_a_killed_worker_is_back_within_the_back_off(daemon: Callable[..., Daemon]) -> None:
    run = daemon(FLOW, supervisor={"backoff_first_s": 0.0}).start()
    victim = run.events("stage", "start")[0]
    os.kill(victim["pid"], signal.SIGKILL)
    again = run.wait_for("stage", "ready", 3)
    assert again["index"] == victim["index"]
    assert again["pid"] != victim["pid"]

    def back() -> dict[str, Any] | None:
        workers = run.status()["workers"]
        return next((w for w in workers if w["restarts"] == 1 and w["state"] == "RUNNING"), None)

    assert until(back, "it is RUNNING again")["last_exit"] == "killed by SIGKILL"
    others = [w for w in run.status()["workers"] if w["pid"] != again["pid"]]
    assert [w["restarts"] for w in others] == [0, 0, 0]
    assert run.stop() == 0


def test_a_crash_is_shown_as_back_off_with_the_reason_and_the_next_try(daemon: Callable[..., Daemon]) -> None:
    run = daemon(
        {"source": {}, "sink": {"dies": 75, "start_s": 1.0}},
        supervisor={"backoff_first_s": 30.0, "backoff_max_s": 60.0},
    ).start()
    worker = run.worker("sink")
    assert worker["state"] == "BACKOFF"
    assert worker["reason"] == "exit 75: its identity was taken over, or given up by the brokers"
    assert worker["next_try"] > worker["since"]
    assert (worker["pid"], worker["ready"]) == (None, False)
    assert run.status()["state"] == "degraded"
    assert run.worker("source")["state"] == "RUNNING", "a sink that fails must not hold up the rest for ever"
    assert run.stop() == 0


def test_an_end_that_nobody_asked_for_is_followed_by_a_restart_even_with_exit_code_0(
    daemon: Callable[..., Daemon],
) -> None:
    run = daemon({"sink": {}}).start()
    os.kill(run.events("sink", "start")[0]["pid"], signal.SIGTERM)
    run.wait_for("sink", "ready", 2)
    assert run.until_state("sink", "RUNNING")["last_exit"] == "exit 0: done"


def test_exit_78_is_fatal_at_once_and_the_others_go_on(daemon: Callable[..., Daemon]) -> None:
    run = daemon({"source": {}, "sink": {"raises": "config"}}).start()
    worker = run.worker("sink")
    assert (worker["state"], worker["reason"], worker["restarts"]) == ("FATAL", "exit 78: configuration", 0)
    assert run.status()["state"] == "degraded"
    assert "kafka.bootstrap is wrong" in run.log()
    assert run.stop() == 0


def test_exit_78_ends_the_daemon_with_78_where_the_configuration_says_so(
    daemon: Callable[..., Daemon],
) -> None:
    run = daemon({"source": {}, "sink": {"raises": "config"}}, supervisor={"on_fatal": "exit"})
    assert run.start(until_ready=False).end() == 78
    assert run.events("source") == []


def test_a_crash_loop_is_given_up_after_so_many_restarts(daemon: Callable[..., Daemon]) -> None:
    run = daemon(
        {"source": {}, "sink": {"lives": 0.01, "exit": 3}},
        supervisor={"backoff_first_s": 0.0, "max_restarts": 4},
    ).start()
    worker = run.until_state("sink", "FATAL")
    assert worker["restarts"] == 4
    assert worker["reason"].endswith("the last: exit 3")
    assert len(run.events("sink", "start")) == 5
    assert run.worker("source")["restarts"] == 0


def test_a_daemon_of_which_nothing_is_left_ends_with_the_code_of_the_worker(
    daemon: Callable[..., Daemon],
) -> None:
    run = daemon({"sink": {"dies": 69}}, supervisor={"backoff_first_s": 0.0, "max_restarts": 2})
    assert run.start(until_ready=False).end() == 69


@pytest.mark.parametrize(
    ("raised", "text"), [("error", "RuntimeError: nobody expected this"), ("panic", "Panic: a panic")]
)
def test_an_exception_leaves_its_traceback_in_the_log_and_exit_code_70(
    daemon: Callable[..., Daemon], raised: str, text: str
) -> None:
    run = daemon({"sink": {"raises": raised, "once": True}}).start()
    assert run.worker("sink")["last_exit"] == "exit 70: an unexpected exception"
    assert "Traceback" in run.log()
    assert text in run.log()


def test_a_hung_worker_leaves_its_stacks_in_the_log_and_is_restarted(daemon: Callable[..., Daemon]) -> None:
    run = daemon({"sink": {"hangs": True, "once": True, "hang_s": 1.0}}).start()
    run.wait_for("sink", "ready", 2)
    assert run.until_state("sink", "RUNNING")["last_exit"] == "killed by SIGABRT"
    assert "hang_in_this_function" in run.log()
    assert "wait_in_another_thread" in run.log(), "of every thread"
    assert "hung: no sign of its work loop for 1.0 s" in run.log()


def test_a_slow_start_within_its_grace_is_not_a_hang(daemon: Callable[..., Daemon]) -> None:
    run = daemon({"sink": {"waits": 1.6, "hang_s": 1.0, "start_s": 10.0}}).start()
    assert run.worker("sink")["restarts"] == 0
    assert run.worker("sink")["state"] == "RUNNING"


def test_a_worker_that_gives_signs_while_it_waits_is_not_hung_however_long_it_takes(
    daemon: Callable[..., Daemon],
) -> None:
    run = daemon({"sink": {"waits_with_signs": 1.5, "start_s": 0.3}}).start()
    run.wait_for("sink", "ready")
    assert run.until_state("sink", "RUNNING")["restarts"] == 0


def test_a_worker_that_gives_no_sign_within_its_grace_is_restarted(daemon: Callable[..., Daemon]) -> None:
    run = daemon({"sink": {"waits": 60, "once": True, "start_s": 0.5}}).start()
    run.wait_for("sink", "ready")
    assert run.until_state("sink", "RUNNING")["last_exit"] == "killed by SIGABRT"
    assert "while it started" in run.log()


def test_a_worker_stopped_from_outside_counts_as_hung(daemon: Callable[..., Daemon]) -> None:
    run = daemon({"sink": {"hang_s": 1.0}}).start()
    os.kill(run.events("sink", "start")[0]["pid"], signal.SIGSTOP)
    run.wait_for("sink", "ready", 2)
    assert run.until_state("sink", "RUNNING")["restarts"] == 1


def test_a_worker_that_uses_too_much_memory_drains_and_is_restarted(daemon: Callable[..., Daemon]) -> None:
    eater = {"eats_mb": 300, "once": True, "memory_mb": 200, "drains": 0.2}
    run = daemon({"source": {}, "sink": eater}).start()
    run.wait_for("sink", "ready", 2)
    run.until_state("sink", "RUNNING")
    assert "MB, more than its 200 (memory_mb): drains" in run.log()
    assert "MB of its 200 (memory_mb); exit 0: done" in run.log()
    assert [event["what"] for event in run.events("sink")] == [
        "start",
        "ready",
        "stop",
        "end",
        "start",
        "ready",
    ]
    assert run.worker("sink")["restarts"] == 1
    assert run.worker("source")["restarts"] == 0


def test_a_worker_that_always_uses_too_much_memory_waits_longer_each_time_and_is_given_up(
    daemon: Callable[..., Daemon],
) -> None:
    run = daemon(
        {"source": {}, "sink": {"eats_mb": 300, "memory_mb": 200}}, supervisor={"max_restarts": 1}
    ).start()
    worker = run.until_state("sink", "FATAL")
    assert "given up after too many restarts" in worker["reason"]
    assert "memory_mb" in worker["reason"]


def test_a_stop_while_a_worker_drains_for_its_memory_is_a_clean_stop(daemon: Callable[..., Daemon]) -> None:
    run = daemon({"sink": {"eats_mb": 300, "memory_mb": 200, "drains": 0.5}}).start()
    run.wait_for("sink", "stop")
    assert run.stop() == 0
    assert len(run.events("sink", "start")) == 1


def test_a_worker_that_hangs_even_on_abort_is_killed(daemon: Callable[..., Daemon]) -> None:
    run = daemon({"sink": {"hangs": True, "ignores_abort": True, "once": True, "hang_s": 1.0}}).start()
    run.wait_for("sink", "ready", 2)
    assert run.until_state("sink", "RUNNING")["last_exit"] == "killed by SIGKILL"

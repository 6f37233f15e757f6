"""The status document, from the shared memory alone."""

from __future__ import annotations

import json
import logging
import os
import time

import pytest

from pipelined.stats import registry
from pipelined.stats.slots import SharedStats, WorkerState
from pipelined.stats.status import document, exit_in_words


def tell(
    stats: SharedStats, worker: str, state: WorkerState, *, last_exit: int = 0, next_try: float = 0.0
) -> None:
    pid = os.getpid() if state in {WorkerState.STARTING, WorkerState.RUNNING, WorkerState.STOPPING} else 0
    page = stats.slot(worker, 0).parent
    page.write(state=state, pid=pid, restarts=2, last_exit=last_exit, since=time.time(), next_try=next_try)


@pytest.fixture
def stats() -> SharedStats:
    made = SharedStats({"download": 1, "upload": 1})
    for worker in ("download", "upload"):
        made.slot(worker, 0).child.begin(os.getpid())
        tell(made, worker, WorkerState.RUNNING)
    return made


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (0, "exit 0: done"),
        (78, "exit 78: configuration"),
        (33, "exit 33"),
        (-9, "killed by SIGKILL"),
        (-6, "killed by SIGABRT"),
        (-99, "killed by signal 99"),
    ],
)
def test_an_end_is_told_in_words(code: int, words: str) -> None:
    assert exit_in_words(code) == words


def test_a_worker_that_runs_and_gives_no_sign_says_so_for_its_reason(
    stats: SharedStats, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = time.monotonic_ns() + 23_400_000_000
    monkeypatch.setattr(time, "monotonic_ns", lambda: later)
    silent = document(stats, pid=1, reasons={("upload", 0): "paused by an operator"})["workers"]
    assert silent[0]["reason"] == (
        "no sign of its work loop for 23 s; after its hang_s it is ended and restarted"
    )
    assert silent[1]["reason"] == "paused by an operator", "what the supervisor knows is told first"
    tell(stats, "download", WorkerState.STOPPING)
    assert document(stats, pid=1)["workers"][0]["reason"] == "", "who drains has a deadline of its own"


def test_a_running_worker_shows_its_numbers(stats: SharedStats) -> None:
    child = stats.slot("download", 0).child
    child.ready()
    child.publish(9464)
    child.add(registry.RECORDS_IN, 7)
    child.add(registry.RECORDS_OUT, 5)
    child.add(registry.FAILURES, 2, "transient")
    child.add(registry.DEAD_LETTERS, 1, "poison")
    child.failed("http_403: https://files.example/a?X-Amz-Signature=abc123 is refused")
    stats.slot("download", 0).parent.measure((12.345, 11.0, 73.26))
    stats.slot("download", 0).parent.log_at(logging.DEBUG, asked=True)
    child.set(registry.LAG, 40)
    child.set(registry.IN_FLIGHT, 2)
    child.set(registry.PAUSED, 1)
    child.say("stands by: another host does this work")
    told = document(stats, pid=4711)
    assert (told["pid"], told["state"], len(told["workers"])) == (4711, "running", 2)
    worker = told["workers"][0]
    assert 0 <= worker.pop("heartbeat_age_s") < 5
    assert worker.pop("since").endswith("Z")
    assert worker.pop("last_error_at").endswith("Z")
    assert worker == {
        "type": "download",
        "index": 0,
        "state": "RUNNING",
        "reason": "",
        "pid": os.getpid(),
        "restarts": 2,
        "last_exit": None,
        "next_try": None,
        "ready": True,
        "published": 9464,
        "records_in": 7,
        "records_out": 5,
        "in_per_second": 12.35,
        "out_per_second": 11.0,
        "cpu_percent": 73.3,
        "in_flight": 2,
        "lag": 40,
        "says": "stands by: another host does this work",
        "paused": True,
        "paused_by_operator": False,
        "log_level": "DEBUG",
        "log_level_by_operator": True,
        "failures": {"transient": 2},
        "dead_letters": {"poison": 1},
        "last_error": "http_403: https://files.example/a?*** is refused",
        "source": None,
    }
    assert json.loads(json.dumps(told)) == told


def test_a_dead_worker_shows_no_gauge_of_its_last_life(stats: SharedStats) -> None:
    child = stats.slot("upload", 0).child
    child.ready()
    child.set(registry.LAG, 40)
    child.failed("bug: it was like this")
    stats.slot("upload", 0).parent.measure((1.0, 1.0, 1.0))
    tell(stats, "upload", WorkerState.BACKOFF, last_exit=-9, next_try=time.time() + 3)
    worker = document(stats, pid=1)["workers"][1]
    assert (worker["ready"], worker["lag"], worker["heartbeat_age_s"], worker["pid"]) == (
        False,
        None,
        None,
        None,
    )
    assert (worker["reason"], worker["last_exit"]) == ("killed by SIGKILL", "killed by SIGKILL")
    assert worker["next_try"] > worker["since"]
    assert (worker["in_per_second"], worker["out_per_second"], worker["cpu_percent"]) == (None, None, None)
    assert worker["last_error"] == "bug: it was like this", "the reason of its end is still worth knowing"


def test_the_supervisors_own_words_come_before_derived_ones(stats: SharedStats) -> None:
    tell(stats, "upload", WorkerState.FATAL, last_exit=70)
    derived = document(stats, pid=1)["workers"][1]["reason"]
    assert derived == "given up: exit 70: an unexpected exception"
    told = document(stats, pid=1, state="stopping", reasons={("upload", 0): "because"})
    assert (told["state"], told["workers"][1]["reason"], told["workers"][0]["reason"]) == (
        "stopping",
        "because",
        "",
    )


@pytest.mark.parametrize(
    ("state", "generations", "daemon"),
    [
        (WorkerState.RUNNING, 1, "running"),
        (WorkerState.STOPPED, 1, "running"),
        (WorkerState.STARTING, 1, "starting"),
        (WorkerState.STARTING, 2, "degraded"),
        (WorkerState.STOPPING, 1, "stopping"),
        (WorkerState.BACKOFF, 1, "degraded"),
        (WorkerState.EXITED, 1, "degraded"),
        (WorkerState.FATAL, 1, "degraded"),
    ],
)
def test_the_daemons_state_follows_from_the_workers(
    stats: SharedStats, state: WorkerState, generations: int, daemon: str
) -> None:
    for _ in range(generations - 1):
        stats.slot("upload", 0).child.begin(os.getpid())
    tell(stats, "upload", state)
    assert document(stats, pid=1)["state"] == daemon

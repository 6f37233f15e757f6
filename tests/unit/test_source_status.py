"""What the status tells of a source: how far it is, and in words what keeps it."""

from __future__ import annotations

import os
import time

import pytest

from pipelined.cli.table import lines
from pipelined.stats import source_metrics
from pipelined.stats.slots import Child, SharedStats, WorkerState
from pipelined.stats.status import document

POLLER = "eventhouse-poller"


@pytest.fixture
def stats() -> SharedStats:
    made = SharedStats({POLLER: 1, "event-ingester": 1})
    for worker in (POLLER, "event-ingester"):
        made.slot(worker, 0).child.begin(os.getpid())
        made.slot(worker, 0).parent.write(
            state=WorkerState.RUNNING, pid=os.getpid(), restarts=0, last_exit=0, since=1.0, next_try=0.0
        )
    return made


@pytest.fixture
def child(stats: SharedStats) -> Child:
    return stats.slot(POLLER, 0).child


def test_a_source_tells_its_position_its_delay_and_its_rate(stats: SharedStats, child: Child) -> None:
    child.say("behind")
    child.set(source_metrics.POSITION, 1_800_000_000.0)
    child.set(source_metrics.DELAY, 12.5)
    child.set(source_metrics.RATE, 130.0)
    child.set(source_metrics.WAITING, 1)
    child.set(source_metrics.TOKEN, 1_800_000_600.0)
    told = document(stats, pid=1)
    assert told["workers"][0]["source"] == {
        "state": "behind",
        "position": "2027-01-15T08:00:00.000Z",
        "delay_s": 12.5,
        "rows_per_second": 130.0,
        "waiting": True,
        "held": False,
        "refused": False,
        "fallback": False,
        "token_expires": "2027-01-15T08:10:00.000Z",
    }
    assert told["workers"][1]["source"] is None
    assert lines(told)[-1] == (
        "eventhouse-poller/0: behind; 130 rows/s; all until 2027-01-15T08:00:00.000Z is taken, "
        "12.5 s behind; logged in until 2027-01-15T08:10:00.000Z"
    )


@pytest.mark.parametrize(
    "says",
    [
        "cannot log in: the secret has expired",
        "refused: the table is gone",
        "held back: download is 9 behind",
    ],
)
def test_what_keeps_it_is_said_in_words(stats: SharedStats, child: Child, says: str) -> None:
    child.say(says)
    told = document(stats, pid=1)
    worker = told["workers"][0]
    assert worker["says"] == says
    assert worker["source"]["state"] == says.partition(":")[0]
    assert worker["source"]["position"] is worker["source"]["delay_s"] is None
    assert lines(told)[-1].startswith(f"eventhouse-poller/0: {says}; 0 rows/s")


def test_a_source_without_a_process_tells_nothing_of_its_last_life(stats: SharedStats, child: Child) -> None:
    child.say("behind")
    child.set(source_metrics.POSITION, time.time())
    parent = stats.slot(POLLER, 0).parent
    parent.write(state=WorkerState.BACKOFF, pid=0, restarts=1, last_exit=69, since=1.0, next_try=2.0)
    told = document(stats, pid=1)
    assert told["workers"][0]["says"] == ""
    assert told["workers"][0]["source"]["position"] is None
    (line,) = lines(told)[4:]
    assert line.startswith(f"{POLLER}/0: exit 69: something it needs cannot be reached; next try")


def test_a_worker_that_stands_by_says_so_below_the_table(stats: SharedStats) -> None:
    stats.slot("event-ingester", 0).child.say("stands by: another host does this work")
    assert lines(document(stats, pid=1))[-1] == "event-ingester/0: stands by: another host does this work"

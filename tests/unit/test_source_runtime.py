"""The loop of a worker that brings events in, on plain lists: what it asks for when, and what it commits."""

from __future__ import annotations

import threading
import time
from collections import deque

import pytest

from pipelined.errors import (
    AuthError,
    ConfigError,
    DependencyError,
    FencedError,
    TransientError,
    UnavailableError,
)
from pipelined.kafka.transactions import Aborted
from pipelined.sources.contract import Facts, Page
from pipelined.stages.contract import Output, Stream
from pipelined.stats import registry as metrics
from pipelined.stats import source_metrics
from pipelined.workers import source as runtime_module
from source_turns import CONFIG, Turn, reading
from waiting import until


def test_each_page_is_committed_with_the_position_behind_it() -> None:
    turn = Turn(95)
    with reading(turn) as worker:
        until(turn.all_there)
        assert turn.ledger.position == b"95"
        assert turn.ledger.transactions == 10
        turn.count = 97
        until(turn.all_there)
        assert turn.ledger.position == b"97"
        until(lambda: turn.source.told[-1:] == [b"97"], "the source is told of each page")
        assert worker.stats.counter(metrics.RECORDS_IN) == worker.stats.counter(metrics.RECORDS_OUT) == 97
        assert worker.stats.counter(source_metrics.POLLS, "page") == 11
    assert turn.source.resumed == [None]
    assert len(turn.source.threads) == 1, "a source is called by one thread"
    assert threading.get_ident() not in turn.source.threads


def test_the_next_turn_goes_on_behind_what_was_committed() -> None:
    turn = Turn(20)
    turn.ledger.position = b"12"
    with reading(turn):
        until(lambda: turn.ledger.position == b"20")
    assert turn.source.resumed == [b"12"]
    assert turn.ledger.rows == list(range(12, 20))


def test_the_next_page_is_fetched_while_one_is_committed_and_not_the_one_after_it() -> None:
    turn = Turn(100)
    turn.ledger.commits.clear()
    with reading(turn):
        until(lambda: turn.source.next == 20, "two pages are fetched")
        time.sleep(0.3)  # long enough for a third
        assert (turn.source.next, turn.ledger.committing) == (20, 1)
        turn.ledger.commits.set()
        until(turn.all_there)


def test_while_there_is_more_nothing_is_waited_for_and_then_the_pause_is_kept() -> None:
    turn = Turn(50, pause_s=0.3)
    with reading(turn):
        until(turn.all_there)
        until(lambda: len(turn.source.fetches) >= 8)
    gaps = [b - a for a, b in zip(turn.source.fetches, turn.source.fetches[1:], strict=False)]
    assert sum(gaps[:4]) < 0.3, "five pages at once"
    assert all(gap >= 0.29 for gap in gaps[4:7]), "then one question in each pause"


def test_a_source_that_waits_itself_is_asked_again_at_once() -> None:
    turn = Turn(0, pause_s=0.0)
    with reading(turn):
        until(lambda: len(turn.source.fetches) > 10, patience=5)
        turn.count = 5
        until(turn.all_there)


def test_after_an_abort_the_page_is_fetched_and_committed_again() -> None:
    turn = Turn(40)
    turn.ledger.faults += [Aborted("no"), Aborted("no"), Aborted("no")]
    with reading(turn) as worker:
        until(turn.all_there)
        assert worker.stats.counter(metrics.TRANSACTIONS, "aborted") == 3
    assert turn.source.resumed == [None] * 4


def test_an_abort_in_the_middle_takes_back_what_was_fetched_ahead() -> None:
    turn = Turn(100)
    turn.ledger.commits.clear()
    with reading(turn):
        until(lambda: turn.source.next == 20)
        turn.ledger.commits.set()
        until(turn.all_there)
        turn.ledger.commits.clear()
        turn.count = 200
        until(lambda: turn.source.next == 120)
        turn.ledger.faults.append(Aborted("no"))
        turn.ledger.commits.set()
        until(turn.all_there)
    assert turn.source.resumed == [None, b"100"]


def test_a_failure_that_may_be_over_is_tried_again_soon_and_not_before_its_time() -> None:
    turn = Turn(10)
    turn.source.faults += [
        TransientError("http_503", "busy"),
        TransientError("throttled", "too many", retry_after=0.7),
    ]
    with reading(turn) as worker:
        until(turn.all_there)
        assert worker.stats.counter(metrics.FAILURES, "transient") == 2
        assert worker.stats.counter(source_metrics.POLLS, "failed") == 2
        assert worker.stats.counter(metrics.PAUSES) == 0, "a hiccup is no outage"
    first, second, third = turn.source.fetches[:3]
    assert second - first > 0.15
    assert third - second >= 0.7


def test_a_failure_that_stays_is_an_outage() -> None:
    turn = Turn(10)
    turn.source.faults += [TransientError("http_503", "busy") for _ in range(4)]
    with reading(turn) as worker:
        until(lambda: worker.stats.counter(metrics.PAUSES) == 1)
        until(turn.all_there)
        until(lambda: worker.stats.gauge(metrics.PAUSED) == 0)


@pytest.mark.parametrize(
    ("error", "state", "category"),
    [
        (AuthError("http_401", "the token is refused"), "cannot log in", "auth"),
        (DependencyError("down", "no route"), "cannot be reached", "dependency_down"),
        (ConfigError("the table is gone"), "refused", "permanent"),
        (RuntimeError("surprise"), "unexpected error", "bug"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_stands_in_the_way_is_said_and_over_when_it_is_over(
    error: Exception, state: str, category: str
) -> None:
    turn = Turn(10)
    turn.source.faults += [error] * 3
    with reading(turn) as worker:
        until(lambda: worker.stats.says.startswith(f"{state}: "), worker.stats.says)
        assert str(error) in worker.stats.says
        assert worker.stats.gauge(metrics.PAUSED) == 1
        assert worker.stats.gauge(source_metrics.REFUSED) == isinstance(error, ConfigError)
        until(turn.all_there)
        assert worker.stats.counter(metrics.FAILURES, category) == 3
        until(lambda: worker.stats.says == "quiet")
        assert worker.stats.gauge(metrics.PAUSED) == worker.stats.gauge(source_metrics.REFUSED) == 0


def test_a_position_that_the_source_refuses_is_offered_again_and_never_replaced() -> None:
    turn = Turn(30)
    turn.ledger.position = b"20"
    turn.source.resume_faults += [ConfigError("unknown position")] * 2
    with reading(turn) as worker:
        until(lambda: "unknown position" in worker.stats.says)
        until(lambda: turn.ledger.position == b"30")
    assert turn.source.resumed == [b"20"]
    assert turn.ledger.rows == list(range(20, 30))


def test_told_to_stop_it_ends_though_the_source_hangs() -> None:
    turn = Turn(10)
    worker = turn.start()
    until(turn.all_there)
    turn.source.answers.clear()
    fetches = len(turn.source.fetches)
    until(lambda: len(turn.source.fetches) > fetches)
    began = time.monotonic()
    worker.stop()
    assert time.monotonic() - began < 2
    assert not turn.source.closed, "it is in the middle of a call"
    turn.source.answers.set()
    until(lambda: turn.source.closed)


def test_while_the_source_hangs_the_worker_gives_signs_of_life() -> None:
    turn = Turn(10)
    with reading(turn) as worker:
        until(turn.all_there)
        turn.source.answers.clear()
        fetches = len(turn.source.fetches)
        until(lambda: len(turn.source.fetches) > fetches)
        before = worker.stats.heartbeat_ns
        until(lambda: worker.stats.heartbeat_ns > before)


def test_the_stages_behind_hold_it_back_until_they_have_caught_up() -> None:
    turn = Turn(0)
    with reading(turn) as worker:
        turn.lag = 100
        turn.count = 10
        until(turn.all_there)
        until(lambda: worker.stats.says == "held back: event-ingester is 100 records behind")
        assert worker.stats.gauge(source_metrics.HELD) == 1
        turn.count, turn.lag = 20, 51
        fetched = len(turn.source.fetches)
        time.sleep(0.3)  # in which it could have fetched
        assert len(turn.source.fetches) <= fetched + 1, "one may have been under way"
        turn.lag = 50
        until(turn.all_there)
        until(lambda: worker.stats.gauge(source_metrics.HELD) == 0)


def test_quiet_and_broken_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime_module, "_PROBE_S", 0.1)
    turn = Turn(10)
    with reading(turn) as worker:
        until(turn.all_there)
        until(lambda: turn.source.probes > 2)
        until(lambda: worker.stats.says == "quiet")
        assert worker.stats.gauge(source_metrics.WAITING) == 0
        turn.source.waiting = True
        until(lambda: worker.stats.says.startswith("stuck: "))
        assert worker.stats.gauge(source_metrics.WAITING) == 1
        turn.count = 20
        until(turn.all_there)
        turn.source.waiting = False
        until(lambda: worker.stats.says == "quiet")


def test_a_source_that_brings_something_is_not_probed() -> None:
    turn = Turn(10)
    with reading(turn):
        until(turn.all_there)
        until(lambda: len(turn.source.fetches) > 10)
    assert turn.source.probes == 0


def test_the_facts_of_a_source_become_metrics() -> None:
    turn = Turn(10)
    turn.source.facts_now = Facts((0.2,), 2, 1, time.time() + 600, 1_800_000_000.0, "no cursors here")
    with reading(turn) as worker:
        stats = worker.stats
        until(lambda: stats.says == "quiet; fallback in use: no cursors here")
        assert stats.gauge(source_metrics.FALLBACK) == 1
        assert stats.gauge(source_metrics.TOKEN) == 1_800_000_000.0
        assert abs(stats.gauge(source_metrics.CLOCK) - time.time() - 600) < 5
        polls = stats.counter(source_metrics.POLLS, "page") + stats.counter(source_metrics.POLLS, "empty")
        assert stats.counter(source_metrics.SHORTENED) >= polls > 0
        assert stats.counter(source_metrics.THROTTLED) >= 2 * polls
        assert sum(stats.histogram(source_metrics.QUERY_SECONDS)[1]) >= polls
    assert worker.stats.gauge(source_metrics.FALLBACK) == 0, "the turn is over"
    assert worker.stats.says == ""


def test_a_clock_of_the_source_that_is_wrong_makes_no_delay() -> None:
    turn = Turn(10)
    turn.source.facts_now = Facts(now=time.time() + 600)
    with reading(turn) as worker:
        until(lambda: worker.stats.gauge(source_metrics.POSITION) > time.time() + 300)
        assert worker.stats.gauge(source_metrics.DELAY) < 60


def test_a_source_that_is_behind_says_how_far() -> None:
    turn = Turn(1000)
    turn.ledger.commits.clear()
    with reading(turn) as worker:
        until(lambda: turn.source.next == 20, "two pages are fetched, and none after them")
        turn.source.answers.clear()
        turn.ledger.commits.set()
        until(lambda: worker.stats.says == "behind")
        assert abs(worker.stats.gauge(source_metrics.DELAY) - (time.time() - 1_000_010)) < 60


def test_an_event_that_no_broker_takes_is_the_operators_matter() -> None:
    turn = Turn(0)
    large = Output(Stream.RAW, b"k", b"x" * (CONFIG.kafka.max_message_bytes + 1), [])
    pages = deque([Page([large], b"1", None, False)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(turn.source, "fetch", lambda timeout: pages[0])
        turn.ledger.faults += [Aborted("MSG_SIZE_TOO_LARGE")] * 100
        with reading(turn) as worker:
            until(lambda: "kafka.max_message_bytes" in worker.stats.says)
            assert worker.stats.gauge(source_metrics.REFUSED) == 1
    assert turn.ledger.position is None, "nothing is skipped"


def test_a_fenced_worker_ends_its_turn_and_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime_module, "_STAND_DOWN_S", 0.1)
    turn = Turn(10)
    turn.ledger.faults.append(FencedError("another one"))
    worker = turn.start()
    assert worker.ended() is None
    until(lambda: turn.source.closed)
    assert turn.ledger.rows == []


def test_a_position_that_cannot_be_read_is_waited_for() -> None:
    turn = Turn(10)
    turn.unread += [UnavailableError("no brokers"), UnavailableError("no brokers")]
    with reading(turn) as worker:
        until(turn.all_there)
        assert worker.stats.counter(metrics.PAUSES) == 2


def test_a_source_with_nothing_to_commit_still_learns_that_it_is_fenced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(runtime_module, "_STAND_DOWN_S", 0.1)
    monkeypatch.setattr(runtime_module, "_KEEP_S", 0.1)
    turn = Turn(10)
    worker = turn.start()
    until(lambda: turn.ledger.transactions > 3, "its position is committed again and again")
    assert turn.ledger.position == b"10"
    turn.ledger.faults.append(FencedError("the position was set"))
    assert worker.ended() is None
    assert turn.ledger.rows == list(range(10))

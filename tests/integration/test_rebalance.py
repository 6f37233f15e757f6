"""Partitions that move under load, with much in hand: each record once, and none waits for long."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rebalancing import PARTITIONS, RATE, SESSION_S, Load, Workers

from kafka_tools import declared, small
from pipelined.config.tree import Config
from pipelined.crashpoints import Point
from pipelined.kafka.settings import GROWTH_SEEN_MS
from waiting import until

pytestmark = pytest.mark.timeout(180)

#: What a machine that is busy with other things may add to what is measured here.
SLACK_S = 3.0


@pytest.fixture
def config(kafka_bootstrap: str, domain: str) -> Iterator[Config]:
    with declared(small(kafka_bootstrap, domain, PARTITIONS, session_timeout_s=SESSION_S)) as made:
        yield made


@pytest.fixture
def workers(config: Config, tmp_path: Path) -> Iterator[Workers]:
    made = Workers(config, tmp_path)
    yield made
    made.kill()


@pytest.fixture
def judged(record_property: Callable[[str, object], None]) -> Callable[[str, dict[int, float], float], None]:
    """Hold the longest gaps against a limit, and keep them with the test's result."""

    def judge(what: str, gaps: dict[int, float], limit: float) -> None:
        told = {number: round(gap, 2) for number, gap in gaps.items()}
        record_property(what, told)
        print(f"{what}: longest gap by partition, s: {told}")
        assert max(gaps.values()) < limit, what

    return judge


Judge = Callable[[str, dict[int, float], float], None]


def test_members_that_join_leave_and_come_back_under_load_do_every_record_once(
    config: Config, workers: Workers, judged: Judge
) -> None:
    with Load(config) as load:
        workers.start(0)
        workers.share(0)
        until(lambda: len(load.seen) > RATE)
        began = time.monotonic()
        workers.start(1)
        workers.share(0, 1)
        workers.start(2)
        workers.share(0, 1, 2)
        workers.leave(0)
        workers.share(1, 2)
        judged("two join, one leaves", load.gaps(began), SESSION_S)
        began = time.monotonic()
        workers.end(1, signal.SIGKILL)
        workers.start(1)
        workers.share(1, 2)
        time.sleep(1)  # of load
        judged("killed and restarted", load.gaps(began), SESSION_S)
        load.finish()


def test_a_storm_of_members_that_come_and_go_costs_no_record(
    config: Config, workers: Workers, judged: Judge
) -> None:
    with Load(config) as load:
        workers.start(0)
        workers.share(0)
        until(lambda: len(load.seen) > RATE)
        began = time.monotonic()
        for _ in range(4):
            workers.start(1)
            time.sleep(0.4)  # wherever it has come to by then
            workers.start(2)
            workers.share(0, 1, 2)
            workers.leave(2)
            workers.leave(1)
        workers.share(0)
        judged("eight joins and leaves", load.gaps(began), SESSION_S)
        load.finish()


def test_what_a_dead_member_had_moves_when_its_session_ends(
    config: Config, workers: Workers, judged: Judge
) -> None:
    with Load(config) as load:
        workers.start(0, 1)
        workers.share(0, 1)
        until(lambda: len(load.seen) > RATE)
        began = time.monotonic()
        workers.end(1, signal.SIGKILL)
        workers.share(0)
        judged("dead for good", load.gaps(began), SESSION_S + SLACK_S)
        load.finish()


def test_a_zombie_wakes_up_with_its_hands_full_and_nothing_of_it_counts(
    config: Config, workers: Workers, judged: Judge
) -> None:
    with Load(config) as load:
        workers.start(0, 1)
        workers.share(0, 1)
        until(lambda: len(load.seen) > RATE)
        began = time.monotonic()
        workers.send(1, signal.SIGSTOP)
        workers.share(0)
        # The other one works on what the zombie had, for a while.
        until(lambda: min(map(len, load.arrivals.values())) > 0)
        time.sleep(1)
        workers.send(1, signal.SIGCONT)
        until(lambda: "partitions lost" in workers.log(1) or "took over" in workers.log(1), workers.log(1))
        workers.share(0, 1)
        judged("a zombie", load.gaps(began), SESSION_S + SLACK_S)
        load.finish()


def test_a_partition_does_not_rest_when_its_owner_is_killed_while_it_changes_hands(
    config: Config, workers: Workers, judged: Judge
) -> None:
    with Load(config) as load:
        workers.start(0)
        workers.share(0)
        until(lambda: len(load.seen) > RATE)
        began = time.monotonic()
        workers.arm(Point.REVOKED)
        workers.start(1)
        until(lambda: workers.killed(0))
        workers.start(0)
        workers.share(0, 1)
        assert "nobody in the group" in workers.log(0) + workers.log(1)
        twice = GROWTH_SEEN_MS / 1000 + 2  # from the first look to the second
        judged("killed while partitions change hands", load.gaps(began), SESSION_S + twice + SLACK_S)
        load.finish()

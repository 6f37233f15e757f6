"""Work of one host at a time: who is elected, who takes over and when; and what stays on a host."""

from __future__ import annotations

import dataclasses
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from kafka_tools import declared, small
from pipelined.config.tree import Config
from pipelined.errors import FencedError
from pipelined.kafka.election import Election
from pipelined.kafka.groups import members
from pipelined.kafka.leaving import leave
from pipelined.kafka.settings import Names
from pipelined.workers.office import in_turn
from records import slot
from waiting import until

SESSION_S = 4.0
WORKER = "event-writer"


@pytest.fixture
def config(kafka_bootstrap: str, domain: str) -> Iterator[Config]:
    """The configuration of the host h1."""
    with declared(small(kafka_bootstrap, domain, 4, session_timeout_s=SESSION_S)) as made:
        yield made


def on(config: Config, host: str) -> Config:
    """The configuration of another host."""
    return dataclasses.replace(config, kafka=dataclasses.replace(config.kafka, host=host))


def gone(config: Config, election: Election) -> None:
    """Take a host out of the election for good."""
    instance = Names(config).instance(WORKER, 0)
    assert leave(config, election.group, [instance]) == [instance]


def test_one_is_elected_and_the_next_one_when_it_has_left(config: Config) -> None:
    other = on(config, "h2")
    with ExitStack() as stack:
        with Election(config, WORKER, 0) as first:
            until(lambda: first.elected, "the first is elected")
            second = stack.enter_context(Election(other, WORKER, 0))
            until(lambda: second.joined, "the second has heard that it is not")
            assert (first.elected, second.elected) == (True, False)
            time.sleep(1.5)  # nothing moves while both are there
            assert (first.elected, second.elected) == (True, False)
            told = members(config, lags=True)
            assert [(m.group, m.host, m.turn, m.partitions, m.lag) for m in told] == [
                (first.group, "h1", True, (), None),
                (first.group, "h2", False, (), None),
            ]
        began = time.monotonic()
        gone(config, first)
        until(lambda: second.elected, "the second is elected")
        assert time.monotonic() - began < SESSION_S


def test_one_who_comes_back_is_elected_still_and_one_who_stays_away_is_not(config: Config) -> None:
    with ExitStack() as stack:
        with Election(config, WORKER, 0) as first:
            until(lambda: first.elected)
            second = stack.enter_context(Election(on(config, "h2"), WORKER, 0))
            until(lambda: second.joined)
        with Election(config, WORKER, 0) as again:
            until(lambda: again.elected)
            assert not second.elected
        until(lambda: second.elected, "its session is over")


def test_a_second_one_with_the_same_identity_ends_the_first(config: Config) -> None:
    with Election(config, WORKER, 0) as first:
        until(lambda: first.elected)
        with Election(config, WORKER, 0) as second:
            until(lambda: second.elected)

            def fenced() -> bool:
                try:
                    first.wait(0.1)
                except FencedError as error:
                    return "kafka.host" in str(error)
                return False

            until(fenced, "the first is told")


class Office:
    """A host that notes when it works."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.working = threading.Event()
        self.turns = 0
        self.stats = slot()
        self.stats.begin(os.getpid())
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        in_turn(self.config, WORKER, 0, self.stats, self._stop.is_set, self._work)

    def _work(self, should_stop: Callable[[], bool]) -> None:
        self.turns += 1
        self.working.set()
        while not should_stop():
            time.sleep(0.01)
        self.working.clear()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(20)
        assert not self._thread.is_alive()


def test_who_stands_by_is_ready_and_works_when_its_turn_comes(config: Config) -> None:
    first = Office(config)
    until(first.working.is_set)
    second = Office(on(config, "h2"))
    until(lambda: second.stats.is_ready, "standing by is being ready")
    assert not second.working.is_set()
    first.stop()
    assert not first.working.is_set()
    until(second.working.is_set, "it takes over when the session of the first is over")
    second.stop()
    assert (first.turns, second.turns) == (1, 1)


def test_a_turn_ends_when_the_office_is_lost_and_may_come_again(config: Config) -> None:
    first = Office(config)
    until(first.working.is_set)
    instance = Names(config).instance(WORKER, 0)
    group = Names(config).group(WORKER) + ".leader"
    assert leave(config, group, [instance]) == [instance], "put out of it, as by an operator elsewhere"
    until(lambda: first.turns == 2, "it stood again, and nobody else did")
    first.stop()

"""Back-pressure: when a source is held, when it goes on, and what happens where nobody tells the lag."""

from __future__ import annotations

import threading

import pytest

from pipelined.config.sources import Sources
from pipelined.config.tree import SOURCE_TYPES, WITHOUT_KAFKA, WORKER_TYPES
from pipelined.errors import UnavailableError
from pipelined.kafka.lag import INPUTS
from pipelined.workers.pressure import Pressure
from waiting import until

SETTINGS = Sources(pause_lag=100, resume_lag=40, lag_seconds=0.02)


class Brokers:
    """What the brokers tell; None: they do not answer."""

    def __init__(self, **lags: int) -> None:
        self.lags: dict[str, int] | None = lags
        self.asked = 0

    def ask(self) -> dict[str, int]:
        self.asked += 1
        if self.lags is None:
            raise UnavailableError("no answer")
        return self.lags


def test_it_holds_from_the_pause_lag_on_until_the_resume_lag() -> None:
    brokers = Brokers()
    pressure = Pressure(SETTINGS, brokers.ask)
    held = []
    for lag in (0, 99, 100, 99, 41, 40, 41, 99, 100):
        brokers.lags = {"event-ingester": lag}
        pressure.look()
        held.append(pressure.holds)
    assert held == [False, False, True, True, True, False, False, False, True]


def test_the_slowest_stage_decides_and_is_named() -> None:
    brokers = Brokers(ingester=3, download=100)
    pressure = Pressure(SETTINGS, brokers.ask)
    pressure.look()
    assert (pressure.holds, pressure.lag) == (True, 100)
    assert pressure.why == "download is 100 records behind"


def test_where_no_stage_counts_nothing_holds() -> None:
    pressure = Pressure(SETTINGS, Brokers().ask)
    pressure.look()
    assert (pressure.holds, pressure.why) == (False, "")


def test_before_the_first_answer_it_holds() -> None:
    pressure = Pressure(SETTINGS, Brokers(ingester=0).ask)
    assert pressure.holds
    assert pressure.why
    pressure.look()
    assert not pressure.holds


@pytest.mark.parametrize(("lag", "held"), [(100, True), (0, False)])
def test_without_an_answer_it_does_what_it_did_and_says_so(
    lag: int, held: bool, caplog: pytest.LogCaptureFixture
) -> None:
    brokers = Brokers(ingester=lag)
    pressure = Pressure(SETTINGS, brokers.ask)
    pressure.look()
    brokers.lags = None
    for _ in range(3):
        pressure.look()
    assert pressure.holds is held
    assert "cannot be asked" in pressure.why
    assert caplog.text.count("no answer") == 1, "said once"
    brokers.lags = {"ingester": 0}
    pressure.look()
    assert (pressure.holds, pressure.why) == (False, "")


def test_where_the_first_question_fails_it_reads_and_says_so() -> None:
    brokers = Brokers()
    brokers.lags = None
    pressure = Pressure(SETTINGS, brokers.ask)
    pressure.look()
    assert (pressure.holds, "cannot be asked" in pressure.why) == (False, True)


def test_a_source_that_brings_nothing_costs_no_question() -> None:
    brokers = Brokers(ingester=0)
    pressure = Pressure(SETTINGS, brokers.ask)
    pressure.start()
    until(lambda: brokers.asked == 1)
    assert not threading.Event().wait(0.3)
    assert brokers.asked == 1
    brokers.lags = {"ingester": 100}
    pressure.brought()
    until(lambda: pressure.holds)
    asked = brokers.asked
    until(lambda: brokers.asked > asked, "while it holds it asks on")
    pressure.close()


def test_every_worker_type_that_can_lag_has_an_input() -> None:
    assert set(INPUTS) == set(WORKER_TYPES) - {*SOURCE_TYPES, *WITHOUT_KAFKA}

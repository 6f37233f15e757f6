"""The short day of CI, and what the suite promises: a seed is a plan, and the same one each time."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import realparts
from chaos.day.brokers import dead_coordinators
from chaos.day.faults import Faults
from chaos.day.plan import ABOUT, KILLS, READERS, SESSION_S, TROUBLES, draw
from chaos.day.recovery import Recovery, statistics_of
from chaos.day.report import as_json, enter, render
from chaos.day.running import Outcome, run
from chaos.day.supply import Supply
from pipelined.errors import UnavailableError
from pipelined.ledger import Balance
from pipelined.local.upstream import BOTH, EVENTHOUSE, EVENTHUB

SHORT_MINUTES = 0.8
SHORT_RATE = 60.0
#: Its plan kills the poller, a table worker, the reader and the parent.
SHORT_SEED = 33


@pytest.mark.xdist_group("own-kafka")
@pytest.mark.timeout(420)
def test_a_short_day_of_faults_from_both_sources_ends_in_a_ledger_that_balances(tmp_path: Path) -> None:
    realparts.require("the local Kafka", realparts.local_kafka_missing())
    seed = int(os.environ.get("CHAOS_SEED") or SHORT_SEED)
    plan = draw(seed, SHORT_MINUTES, brokers=1, hosts=1, rate=SHORT_RATE, source=BOTH)
    print(f"to repeat it: {plan.command}")
    outcome = run(plan, tmp_path, print)
    report = render(as_json(outcome))
    assert outcome.passed, f"{report}\nits evidence is in {tmp_path}; again: {plan.command}"
    assert sum(outcome.kills.values()) >= 2, report
    assert outcome.lines > 0.5 * outcome.seconds * SHORT_RATE, report
    assert outcome.balance is not None
    assert all(found.held > 0.25 * outcome.lines for found in outcome.balance.sources.values()), report


def test_a_seed_is_a_plan_and_another_seed_another_one() -> None:
    plans = [draw(seed, 30, brokers=3, hosts=2) for seed in (7, 7, 8)]
    assert plans[0] == plans[1]
    assert plans[0].steps != plans[2].steps


def test_a_longer_day_begins_as_a_shorter_one_does() -> None:
    short, long = (
        [(step.at, step.kind, step.host, step.workers) for step in draw(3, minutes, 3, 2).track("kill")]
        for minutes in (5, 10)
    )
    assert long[: len(short)] == short


def test_half_an_hour_on_three_brokers_plans_two_hundred_kills_and_every_kind_of_fault() -> None:
    for seed in range(5):
        plan = draw(seed, 30, brokers=3, hosts=2)
        assert len(plan.track("kill")) >= 200
        assert {step.kind for step in plan.track("kill")} == KILLS.keys() - ABOUT.keys()
        assert {step.kind for step in plan.track("trouble")} == TROUBLES.keys() - ABOUT.keys()
        assert all(len(set(step.brokers)) == 2 for step in plan.steps if step.kind == "brokers")


def test_a_day_from_both_sources_plans_faults_of_both_and_kills_of_what_reads_them() -> None:
    plan = draw(3, 60, brokers=3, hosts=2, source=BOTH)
    assert {step.kind for step in plan.track("kill")} == KILLS.keys()
    assert {step.kind for step in plan.track("trouble")} == TROUBLES.keys()
    assert {name for step in plan.track("kill") for name in step.workers} >= {*READERS[BOTH]}
    assert len({step.answer for step in plan.steps if step.kind == "answers"}) > 5
    assert plan.command.endswith("SOURCE=both")


def test_a_day_from_one_source_has_no_fault_of_the_other() -> None:
    for source, other in ((EVENTHOUSE, EVENTHUB), (EVENTHUB, EVENTHOUSE)):
        plan = draw(3, 60, brokers=1, hosts=1, source=source)
        assert {ABOUT[step.kind] for step in plan.steps if step.kind in ABOUT} == {source}
        workers = {name for step in plan.steps for name in step.workers}
        assert workers >= {*READERS[source]}
        assert workers.isdisjoint(READERS[other])


def test_what_takes_nothing_while_the_load_is_fed_gets_all_of_it_later() -> None:
    taken: list[bytes] = []

    class Away(Supply):
        failures = 3

        def _put(self, lines: Sequence[bytes]) -> None:
            if self.failures:
                self.failures -= 1
                raise UnavailableError("away")
            taken.extend(lines)

    supply = Away("away")
    supply.start()
    supply.give([b"a", b"b"])
    supply.give([b"c"])
    supply.finish()
    assert taken == [b"a", b"b", b"c"]


def test_a_single_broker_and_a_single_host_are_asked_for_nothing_they_cannot_do() -> None:
    steps = draw(1, 30, brokers=1, hosts=1).steps
    assert {step.kind for step in steps}.isdisjoint({"brokers", "host", "leave"})
    assert {step.host for step in steps} == {0}
    assert all(step.brokers in ((), (0,)) for step in steps)


def test_a_zombie_sleeps_longer_than_its_session_and_some_longer_than_the_supervisor_lets_them() -> None:
    plan = draw(2, 60, brokers=3, hosts=2)
    asleep = [step for step in plan.steps if step.kind == "zombie"]
    assert all(step.seconds > SESSION_S for step in asleep)
    hung = {step.seconds > plan.hang_s[step.host][step.workers[0]] for step in asleep}
    assert hung == {True, False}


def test_each_kind_of_fault_can_be_done() -> None:
    for kind in [*KILLS, *TROUBLES]:
        assert callable(getattr(Faults, f"_{kind}")), kind


def test_a_coordinator_that_failed_to_load_and_was_left_so_is_found_in_the_log() -> None:
    said = [
        "INFO CoordinatorRuntime: [x] Finished loading of metadata from __consumer_offsets-0 with epoch 0",
        "INFO CoordinatorRuntime: [x] Scheduling loading of metadata from __consumer_offsets-1 with epoch 2",
        "ERROR CoordinatorRuntime: [x] Failed to load metadata from __consumer_offsets-1 with epoch 0 due to",
        "ERROR CoordinatorRuntime: [x] Failed to load metadata from __consumer_offsets-2 with epoch 0 due to",
        "INFO CoordinatorRuntime: [x] Started unloading metadata for __consumer_offsets-2 with epoch 1",
    ]
    assert dead_coordinators("\n".join(said)) == ["__consumer_offsets-1"]


def test_times_to_recover_are_summed_up_and_those_without_an_end_counted() -> None:
    seconds = [0.2, 0.4, None, 0.3, 9.0]
    recoveries = [Recovery(number, "worker", "upload", each) for number, each in enumerate(seconds)]
    assert statistics_of(recoveries) == {"kills": 5, "never": 1, "median": 0.35, "p99": 9.0, "worst": 9.0}


@pytest.fixture
def judged() -> dict[str, Any]:
    """A day that lost one row and doubled two."""
    balance = Balance(read=10)
    balance.differ("event_missing_row", "a", "gone")
    for about in ("b", "c"):
        balance.differ("event_doubled_row", about, "twice")
    balance.differ("file_unknown", "d", "whose?")
    outcome = Outcome(draw(1, 1, 1, 1), lines=10, seconds=60, balance=balance)
    outcome.kills.update({"worker": 3, "broker": 1})
    return as_json(outcome)


def test_lost_and_doubled_are_counted_from_the_ledger(judged: dict[str, Any]) -> None:
    assert (judged["lost"], judged["doubled"], judged["other_differences"]) == (1, 2, 1)
    assert not judged["passed"]
    assert "**1 lost, 2 doubled**" in render(judged)


def test_the_record_grows_by_each_day_and_sums_them_up(judged: dict[str, Any], tmp_path: Path) -> None:
    enter(judged, tmp_path)
    enter(judged, tmp_path)
    assert [day["seed"] for day in json.loads((tmp_path / "record.json").read_text())] == [1, 1]
    table = (tmp_path / "RECORD.md").read_text()
    assert "**8 kills** and 0 other faults over **20 events**" in table
    assert "**2 lost, 4 doubled**" in table

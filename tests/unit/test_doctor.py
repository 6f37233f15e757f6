"""How checks are run: in their order, each in its time; what hangs or dies is told, and nobody waits."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from pipelined.config import Config
from pipelined.doctor.checks import CHECKS
from pipelined.doctor.examination import Check, examine
from pipelined.doctor.finding import Finding, Outcome, failed, fine, warned
from pipelined.errors import ConfigError
from processes import gone


def check(name: str, *findings: Finding, needs: tuple[str, ...] = ()) -> Check:
    return Check(name, "", lambda _: findings, "mend it", needs=needs)


def told(*checks: Check) -> list[tuple[str, Finding]]:
    return list(examine(Config(), checks))


def test_findings_come_in_the_order_of_the_checks_whoever_is_faster() -> None:
    def slow(_: Config) -> Iterator[Finding]:
        time.sleep(0.3)
        yield fine("slow")

    assert told(Check("first", "", slow, ""), check("second", fine("quick"), warned("look", "do"))) == [
        ("first", fine("slow")),
        ("second", fine("quick")),
        ("second", warned("look", "do")),
    ]


def test_a_check_that_hangs_is_ended_with_what_it_found_and_the_others_go_on(tmp_path: Path) -> None:
    def hangs(_: Config) -> Iterator[Finding]:
        yield fine("so far")
        (tmp_path / "pid").write_text(str(os.getpid()))
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(600)

    began = time.monotonic()
    found = told(Check("hung", "", hangs, "start it", limit_s=0.5), check("other", fine("well")))
    assert time.monotonic() - began < 10
    assert found == [
        ("hung", fine("so far")),
        ("hung", failed("no answer within 0.5 s", "start it")),
        ("other", fine("well")),
    ]
    assert gone(int((tmp_path / "pid").read_text()))


def test_many_hung_checks_take_no_longer_than_one() -> None:
    def hangs(_: Config) -> Iterator[Finding]:
        time.sleep(600)
        yield fine("never")

    hung = [Check(f"h{number}", "", hangs, "x", limit_s=0.5) for number in range(6)]
    began = time.monotonic()
    assert len(told(*hung)) == 6
    assert time.monotonic() - began < 5


def test_a_check_that_dies_is_told_and_the_others_go_on() -> None:
    def dies(_: Config) -> Iterator[Finding]:
        os.kill(os.getpid(), signal.SIGSEGV)
        yield fine("never")

    (_, died), (_, other) = told(Check("dead", "", dies, ""), check("other", fine("well")))
    assert died.outcome is Outcome.FAIL
    assert "SIGSEGV" in died.found
    assert "--only dead" in died.fix
    assert other == fine("well")


def test_what_a_check_raises_is_what_was_found() -> None:
    def ours(_: Config) -> Iterator[Finding]:
        raise ConfigError(["one thing", "and another"])

    def another(_: Config) -> Iterator[Finding]:
        raise KeyError("what")

    found = told(Check("ours", "", ours, "mend it"), Check("another", "", another, "see"))
    assert [finding for _, finding in found] == [
        failed("one thing", "mend it"),
        failed("and another", "mend it"),
        failed("KeyError: 'what'", "see"),
    ]


def test_a_check_waits_for_what_it_needs_and_is_left_out_where_that_failed() -> None:
    found = told(
        check("later", fine("well"), needs=("good",)),
        check("after", fine("well"), needs=("bad",)),
        check("good", warned("hm", "look")),
        check("bad", failed("no", "mend")),
        check("free", fine("well"), needs=("not asked for",)),
    )
    by_name = dict(found)
    assert by_name["later"] == by_name["free"] == fine("well")
    assert by_name["after"].outcome is Outcome.WARN
    assert by_name["after"].fix == "first mend bad"


def test_nothing_is_left_running_where_nobody_wants_to_know_any_more(tmp_path: Path) -> None:
    def hangs(_: Config) -> Iterator[Finding]:
        (tmp_path / "pid").write_text(str(os.getpid()))
        time.sleep(600)
        yield fine("never")

    findings = examine(Config(), [check("first", fine("well")), Check("hung", "", hangs, "", limit_s=60)])
    assert next(findings)[0] == "first"
    deadline = time.monotonic() + 10
    while not (tmp_path / "pid").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    findings.close()
    assert gone(int((tmp_path / "pid").read_text()))


def test_a_secret_is_masked_in_what_is_found_and_in_the_fix() -> None:
    finding = failed("https://a.blob/x?sig=PLANTED123456&se=1\nnext", "AccountKey=PLANTED123456==;")
    assert "PLANTED" not in finding.found + finding.fix
    assert "\n" not in finding.found


def test_every_check_has_a_name_of_its_own_a_fix_and_a_time() -> None:
    names = [each.name for each in CHECKS]
    assert len({*names}) == len(names)
    assert all(each.fix and each.about and 0 < each.limit_s <= 60 for each in CHECKS)
    assert {need for each in CHECKS for need in each.needs} <= {*names}

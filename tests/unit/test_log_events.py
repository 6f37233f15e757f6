"""Every call that logs belongs to an event of the catalogue, and every event to a call."""

from __future__ import annotations

import logging
import re
from collections import Counter
from pathlib import Path

import pytest

from docs.log_events import Call, calls
from pipelined.logs.events import EVENTS, code_of

CALLS = calls()
#: Made by the handler itself, without a call.
OF_THE_HANDLER = {"log.dropped"}
SEVERE = {"WARNING", "ERROR", "CRITICAL"}


def test_the_calls_are_found() -> None:
    assert len(CALLS) > 90
    assert {call.level for call in CALLS} == {"DEBUG", "INFO", "varies", *SEVERE}


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.where)
def test_every_call_that_logs_has_a_code(call: Call) -> None:
    assert call.code is not None, "give it an Event in pipelined/logs/events"
    assert call.code in {event.code for event in EVENTS}


def test_no_two_events_share_a_code_or_a_sentence() -> None:
    for counted in (Counter(event.code for event in EVENTS), Counter(event.sentence for event in EVENTS)):
        assert [text for text, count in counted.items() if count > 1] == []


def test_no_event_is_left_that_nobody_logs() -> None:
    assert {event.code for event in EVENTS} - {call.code for call in CALLS} == OF_THE_HANDLER


def test_a_code_is_an_area_and_a_name() -> None:
    assert [event.code for event in EVENTS if not re.fullmatch(r"[a-z]+\.[a-z_]+", event.code)] == []


def test_a_warning_says_what_it_means_and_what_to_do() -> None:
    severe = {call.code for call in CALLS if call.level in SEVERE} | OF_THE_HANDLER
    assert [event.code for event in EVENTS if event.code in severe and not (event.means and event.do)] == []


def test_a_sentence_that_says_nothing_by_itself_has_its_code_named() -> None:
    vague = [
        call.where for call in CALLS if call.event is None and not re.search("[a-z]{2}", call.sentence or "")
    ]
    assert vague == []


def test_the_code_of_a_record_is_that_of_its_call() -> None:
    made = logging.makeLogRecord({"msg": "left the group %s", "args": ("a",)})
    assert code_of(made) == "group.left"
    assert code_of(logging.makeLogRecord({"msg": "%s", "event": "operation.begun"})) == "operation.begun"
    assert code_of(logging.makeLogRecord({"msg": "of a library"})) is None


def test_a_call_without_a_code_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text(
        "import logging\nlog = logging.getLogger('a')\n"
        "log.warning('nobody knows this')\nlog.error(text, extra={'event': 'group.left'})\n"
        "other.warning('x')\n"
        "TEXT = 'left the group %s'\nlog.log(level, TEXT)\n"
    )
    found = [(call.where, call.level, call.code) for call in calls(tmp_path)]
    assert found == [
        ("module.py:3", "WARNING", None),
        ("module.py:4", "ERROR", "group.left"),
        ("module.py:7", "varies", "group.left"),
    ]

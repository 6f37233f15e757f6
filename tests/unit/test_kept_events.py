"""What the supervisor keeps of what it did: in memory, in a file, on a disk that is full, slow or gone."""

from __future__ import annotations

import json
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from handclock import Clock
from pipelined.errors import UnavailableError
from pipelined.supervisor import events
from pipelined.supervisor.events import Event, Events, read
from pipelined.supervisor.timers import Timers


@pytest.fixture
def clock() -> Clock:
    return Clock(1_000_000.0)


@pytest.fixture
def timers(clock: Clock) -> Timers:
    return Timers(clock)


@pytest.fixture
def kept(tmp_path: Path, timers: Timers, clock: Clock) -> Events:
    return Events(str(tmp_path), timers, clock)


def whys(told: list[dict[str, Any]]) -> list[str]:
    return [each["why"] for each in told]


def test_an_event_is_one_line_with_its_time_and_what_it_has(kept: Events, tmp_path: Path) -> None:
    kept.add(Event.DIED, "killed by SIGKILL", worker="download/0", pid=7, uid=None)
    kept.flush()
    (line,) = (tmp_path / "events.jsonl").read_text().splitlines()
    assert json.loads(line) == {
        "number": 1_000_000_000_000,
        "time": "1970-01-12T13:46:40.000Z",
        "event": "died",
        "worker": "download/0",
        "why": "killed by SIGKILL",
        "pid": 7,
    }
    assert read(str(tmp_path)) == kept.after(0)


def test_what_the_loop_has_to_do_at_once_comes_before_the_disk_but_not_for_long(
    kept: Events, tmp_path: Path
) -> None:
    for number in range(events._MUCH - 1):
        kept.add(Event.STARTED, f"number {number}")
        kept.flush(busy=True)
    assert read(str(tmp_path)) == []
    kept.add(Event.STARTED, "one more")
    kept.flush(busy=True)
    assert len(read(str(tmp_path))) == events._MUCH
    kept.add(Event.DIED, "the last")
    kept.flush(busy=True)
    kept.flush()
    assert whys(read(str(tmp_path)))[-1] == "the last"


def test_numbers_ascend_within_a_moment_and_from_one_daemon_to_the_next(
    kept: Events, tmp_path: Path, timers: Timers, clock: Clock
) -> None:
    for _ in range(3):
        kept.add(Event.STARTED)
    kept.flush()
    clock.now += 1
    after = Events(str(tmp_path), timers, clock)
    after.add(Event.STARTED)
    clock.now -= 10  # the clock was set back
    after.add(Event.READY)
    after.flush()
    numbers = [told["number"] for told in read(str(tmp_path))]
    assert numbers == sorted(set(numbers))
    assert len(numbers) == 5
    assert [told["event"] for told in after.after(numbers[-2])] == ["ready"]


def test_secrets_in_the_reason_are_masked(kept: Events, tmp_path: Path) -> None:
    kept.add(Event.OUTCOME, "reload is refused: https://h/x?sig=SECRETSIG: password=hunter2")
    kept.flush()
    text = (tmp_path / "events.jsonl").read_text()
    assert "SECRETSIG" not in text
    assert "hunter2" not in text


def test_the_file_is_put_aside_at_its_size_and_two_are_kept(
    kept: Events, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "_MOST_BYTES", 1000)
    for number in range(100):
        kept.add(Event.STARTED, f"number {number}")
        kept.flush(last=True)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["events.jsonl", "events.jsonl.1"]
    assert all(each.stat().st_size < 1200 for each in tmp_path.iterdir())
    told = whys(read(str(tmp_path)))
    assert told == [f"number {number}" for number in range(100 - len(told), 100)]
    assert len(told) > 10


def full_at(size: int) -> Callable[[], None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_what_a_full_disk_does_not_take_is_said_once_and_written_later(
    kept: Events, tmp_path: Path, timers: Timers, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    kept.add(Event.STARTED, "first")
    kept.flush()
    there_is_room = full_at((tmp_path / "events.jsonl").stat().st_size + 10)  # half a line fits
    try:
        for number in range(events._KEPT + 20):
            kept.add(Event.DIED, f"number {number}")
            kept.flush()
            clock.now += 1
            timers.run()
    finally:
        there_is_room()
    assert whys(read(str(tmp_path))) == ["first"], "the half line is passed over"
    assert len(kept.after(0)) == events._KEPT, "all of it is told all the same"
    clock.now += 5
    timers.run()
    clock.now += 5
    timers.run()
    kept.flush(last=True)
    told = read(str(tmp_path))
    assert whys(told)[:2] == ["first", "number 20"]
    assert whys(told)[-2] == f"number {events._KEPT + 19}"
    assert (told[-1]["event"], told[-1]["why"].split()[0]) == ("gap", "20")
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


def test_a_folder_that_is_gone_costs_no_more_than_a_warning(
    tmp_path: Path, timers: Timers, caplog: pytest.LogCaptureFixture
) -> None:
    kept = Events(str(tmp_path / "nowhere"), timers)
    kept.add(Event.STARTED)
    kept.flush(last=True)
    kept.flush(last=True)
    assert len(caplog.records) == 1
    assert len(kept.after(0)) == 1
    assert read(str(tmp_path / "nowhere")) == []


def test_a_slow_disk_has_the_loop_for_a_tenth_of_its_time(
    kept: Events, timers: Timers, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes = []

    def slow(fd: int, data: bytes) -> int:
        writes.append(clock.now)
        time.sleep(0.05)
        return len(data)

    monkeypatch.setattr(os, "write", slow)
    for _ in range(1000):
        kept.add(Event.STARTED)
        kept.flush()
        clock.now += 0.01
        timers.run()
    assert 5 <= len(writes) <= 21, "10 s have passed: of them at most 1 was spent writing"


def test_lines_that_are_not_whole_are_passed_over(tmp_path: Path, kept: Events) -> None:
    (tmp_path / "events.jsonl").write_text(
        '{"number": 1, "time": "t", "event": "re\n[]\n{"number": 2}\nnull\n{"a'
    )
    kept.add(Event.READY, "whole")
    kept.flush()
    assert whys(read(str(tmp_path))) == ["whole"]


def test_a_file_that_cannot_be_read_is_told_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").mkdir()  # root may read every file, but no folder as one
    with pytest.raises(UnavailableError, match=r"events\.jsonl cannot be read: .*; run this as the daemon's"):
        read(str(tmp_path))

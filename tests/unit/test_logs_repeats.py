"""What is said again and again is counted, and what belongs to a record follows it."""

from __future__ import annotations

import gc
import json
import logging
import os
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest

from handclock import Clock
from pipelined.config.tree import Logs
from pipelined.logs import following
from pipelined.logs.context import carried, context
from pipelined.logs.handler import DescriptorHandler
from pipelined.logs.repeats import Repeats
from pipelined.logs.setup import setup, tick

LOG = logging.getLogger("pipelined.test")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def repeats(clock: Clock) -> Repeats:
    return Repeats(3, clock=clock)


def record(message: str, *args: object, level: int = logging.WARNING, **extra: object) -> logging.LogRecord:
    made = logging.LogRecord("pipelined.test", level, __file__, 1, message, args, None)
    vars(made).update(extra)
    return made


def said(records: list[logging.LogRecord]) -> list[str]:
    return [each.getMessage() for each in records]


def test_the_first_ones_pass_and_the_others_are_told_in_one_line(repeats: Repeats, clock: Clock) -> None:
    passed = sum(
        repeats.passes(record("unexpected error at %s/%d@%d", "raw", 3, n)) for n in range(5000, 6237)
    )
    assert passed == 3
    assert repeats.due() == []
    clock.now += 60
    (told,) = repeats.due()
    assert told.getMessage() == "unexpected error at raw/3@5003 (repeated 1,234 times in 60 s)"
    assert (told.levelno, vars(told)["repeated"]) == (logging.WARNING, 1234)
    assert vars(told)["event"] == "record.unexpected"
    assert repeats.due() == [], "told once"


def test_each_minute_begins_anew(repeats: Repeats, clock: Clock) -> None:
    for minute in range(3):
        assert [repeats.passes(record("again")) for _ in range(5)] == [True, True, True, False, False], minute
        clock.now += 61
        assert repeats.passes(record("again")), "the next minute's first"
        assert said(repeats.due()) == ["again (repeated 2 times in 61 s)"]
        clock.now += 61
        assert repeats.due() == [], "nothing was held back then"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (record("failed: %s", "HTTP 404"), record("failed: %s", "HTTP 503")),
        (record("failed: %s", "a.example:9092"), record("failed: %s", "a.example:9093")),
        (record("failed"), record("failed", level=logging.ERROR)),
        (record("failed", code="one"), record("failed", code="other")),
        (record("failed", category="auth"), record("failed", category="bug")),
        (record("failed", error="no space"), record("failed", error="no such file")),
        (record("failed", exc_info=(ValueError, ValueError("a"), None)), record("failed")),
        (
            record("failed", exc_info=(ValueError, ValueError("a"), None)),
            record("failed", exc_info=(ValueError, ValueError("b"), None)),
        ),
    ],
)
def test_different_errors_are_never_taken_for_one(
    one: logging.LogRecord, other: logging.LogRecord, repeats: Repeats
) -> None:
    assert [repeats.passes(one) for _ in range(4)] == [True, True, True, False]
    assert repeats.passes(other)


def test_what_differs_from_record_to_record_makes_no_other_message(repeats: Repeats) -> None:
    for number in range(1000, 1010):
        passes = repeats.passes(
            record(
                "%s of 2f1e8c1a-aaaa-4bbb-8ccc-%012d put off for %.1f s", f"a/1@{number}", number, number / 7
            )
        )
    assert not passes


def test_a_critical_record_always_passes(repeats: Repeats) -> None:
    assert all(repeats.passes(record("breaker", level=logging.CRITICAL)) for _ in range(50))


def test_with_zero_everything_passes(clock: Clock) -> None:
    repeats = Repeats(0, clock=clock)
    assert all(repeats.passes(record("again")) for _ in range(100))


def test_memory_is_bounded_and_what_gives_way_is_told(repeats: Repeats) -> None:
    words = [chr(97 + a) + chr(97 + b) + chr(97 + c) for a in range(26) for b in range(26) for c in range(3)]
    for word in words:
        for _ in range(4):
            repeats.passes(record(word))
    assert len(repeats._counts) == 500
    told = said(repeats.due()) + said(repeats.due(all_of_them=True))
    assert told == [f"{word} (repeated 1 times in 1 s)" for word in words], "none is lost"


def test_what_is_counted_keeps_no_error_alive(repeats: Repeats) -> None:
    class LargeError(Exception):
        pass

    error = LargeError("x")
    for _ in range(5):
        repeats.passes(record("failed", exc_info=(LargeError, error, None)))
    watched = weakref.ref(error)
    del error
    gc.collect()
    assert watched() is None


def test_a_message_that_cannot_be_made_is_no_error(repeats: Repeats) -> None:
    class Unprintable:
        def __str__(self) -> str:
            raise AttributeError("no")

    assert repeats.passes(record("%d of", "two"))
    assert repeats.passes(record("odd", error=Unprintable(), code=Unprintable()))
    assert repeats.passes(record("odd %s", Unprintable()))


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Path]:
    """Logging as JSON to this file, in a process of its own kind."""
    root = logging.getLogger()
    level = root.level
    file = tmp_path / "log"
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    setup(Logs(format="json", repeats=5), worker="download", index=0, descriptor=descriptor)
    yield file
    for each in root.handlers[:]:
        if isinstance(each, DescriptorHandler):
            root.removeHandler(each)
            each.close()
    root.level = level
    logging.captureWarnings(False)
    os.close(descriptor)


def entries(log: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


def handler() -> DescriptorHandler:
    (found,) = (each for each in logging.getLogger().handlers if isinstance(each, DescriptorHandler))
    return found


def test_a_flood_becomes_some_lines_and_is_told_at_the_end_of_the_process(log: Path) -> None:
    begun = time.monotonic()
    for _ in range(10_000):
        LOG.warning("the broker is away", extra={"code": "broker"})
    assert time.monotonic() - begun < 5
    assert len(entries(log)) == 5
    handler().flush()  # as logging.shutdown() does
    last = entries(log)[-1]
    assert str(last["message"]).startswith("the broker is away (repeated 9,995 times in ")
    assert (last["level"], last["code"], last["repeated"]) == ("WARNING", "broker", 9995)


def test_the_counts_of_the_parent_are_not_told_by_a_child(log: Path) -> None:
    for _ in range(10):
        LOG.warning("again")
    child = os.fork()
    if child == 0:
        logging.shutdown()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert len(entries(log)) == 5
    handler().flush()
    assert entries(log)[-1]["repeated"] == 5


def test_counts_are_told_also_where_nothing_else_is_logged(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(handler(), "_repeats", Repeats(2, clock=clock))
    for _ in range(7):
        LOG.warning("again")
    clock.now += 60
    tick()
    assert entries(log)[-1]["message"] == "again (repeated 5 times in 60 s)"


def test_a_process_follows_the_level_that_it_is_told_and_goes_back(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "_EVERY_S", 0.0)
    told = [0]
    follow = following.Following(lambda: told[0])
    for told[0], shows in ((0, False), (logging.DEBUG, True), (logging.DEBUG, True), (logging.INFO, False)):
        follow()
        LOG.debug("a detail")
        assert bool(entries(log)) is shows
        log.write_text("")


def test_looking_for_a_level_costs_next_to_nothing(log: Path) -> None:
    looks = 0

    def wanted() -> int:
        nonlocal looks
        looks += 1
        return logging.INFO

    follow = following.Following(wanted)
    for _ in range(10_000):
        follow()
    assert 1 <= looks < 100, "not at every call"


def test_the_fields_of_a_block_are_those_of_every_record_within(log: Path) -> None:
    with context(stage="download", topic="raw"):
        with context(trace_id="t-1", topic="other"):
            LOG.info("inner")
            LOG.info("own", extra={"topic": "mine"})
        LOG.info("outer")
    LOG.info("outside")
    inner, own, outer, outside = entries(log)
    assert (inner["stage"], inner["topic"], inner["trace_id"]) == ("download", "other", "t-1")
    assert own["topic"] == "mine"
    assert (outer["topic"], "trace_id" in outer) == ("raw", False)
    assert not {"stage", "topic"} & outside.keys()


def test_the_fields_go_along_to_another_thread_when_carried(log: Path) -> None:
    def work() -> None:
        LOG.info("there")

    with context(batch=7):
        threads = [threading.Thread(target=target) for target in (carried(work), work)]
    for thread in threads:
        thread.start()
        thread.join()
    assert [entry.get("batch") for entry in entries(log)] == [7, None]

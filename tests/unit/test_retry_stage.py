from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handclock import Clock
from pipelined.config.work import Retry
from pipelined.stages.contract import Done, Outcome, Output, Record, Stream
from pipelined.stages.retry import RetryStage
from records import P0, P1, record


def waiting(due: float | None, offset: int = 0, partition: object = P0) -> Record:
    headers: list[tuple[str, str | bytes | None]] = [("trace_id", b"t"), ("attempt", b"2")]
    if due is not None:
        headers.append(("not_before", b"%d" % round(due * 1000)))
    return record(b"task", offset, P1 if partition == P1 else P0, key=b"k", headers=headers)


@given(st.lists(st.integers(1000, 1020), min_size=1, max_size=30))
def test_a_task_is_never_handed_back_early_and_always_in_time(dues: list[int]) -> None:
    clock = Clock()
    stage = RetryStage(clock=clock)
    stage.submit([waiting(due, offset) for offset, due in enumerate(dues)])
    assert stage.in_flight == len(dues)
    handed = 0
    for now in range(999, 1022):
        clock.now = now
        offsets = [outcome.record.offset for outcome in stage.poll(0)]
        assert offsets == [offset for offset, due in enumerate(dues) if due == now]
        handed += len(offsets)
        assert stage.in_flight == len(dues) - handed
    assert handed == len(dues)


def test_a_due_task_goes_back_to_pending_as_it_was_without_its_time() -> None:
    stage = RetryStage(clock=Clock())
    given = waiting(1000)
    stage.submit([given])
    (outcome,) = stage.poll(0)
    expected = Output(Stream.PENDING, b"k", b"task", [("trace_id", b"t"), ("attempt", b"2")])
    assert outcome == Done(given, (expected,))


def test_a_millisecond_before_its_time_nothing_is_due() -> None:
    clock = Clock()
    stage = RetryStage(clock=clock)
    stage.submit([waiting(1000.001)])
    assert stage.poll(0) == []
    clock.now = 1000.001
    assert len(stage.poll(0)) == 1


@pytest.mark.parametrize(
    "value", [None, b"", b"soon", b"-5", b"1e3", "²".encode(), "٣".encode(), b"\xff", b"9" * 5000]
)
def test_a_task_whose_time_cannot_be_read_is_due_at_once(value: bytes | None) -> None:
    stage = RetryStage(clock=Clock())
    stage.submit([record(headers=[("not_before", value)])])
    assert len(stage.poll(0)) == 1


def test_what_is_forgotten_is_never_handed_back() -> None:
    clock = Clock()
    stage = RetryStage(clock=clock)
    stage.submit([waiting(1000 + n, n, P0 if n % 2 else P1) for n in range(10)])
    stage.forget([P0])
    clock.now = 2000
    assert [outcome.record.offset for outcome in stage.poll(0)] == [0, 2, 4, 6, 8]


def test_draining_leaves_what_is_not_due_to_its_topic() -> None:
    stage = RetryStage(clock=Clock())
    stage.assigned([P0])
    stage.submit([waiting(5000)])
    stage.drain()
    assert (stage.in_flight, stage.poll(0)) == (0, [])
    stage.committed([])
    stage.close()


def streams(outcomes: list[Outcome]) -> list[str]:
    return [output.stream for outcome in outcomes if isinstance(outcome, Done) for output in outcome.outputs]


def test_a_task_that_waits_for_longer_than_the_longest_delay_is_sent_around_as_it_is() -> None:
    clock = Clock()
    stage = RetryStage(Retry(delays_s=(10.0, 60.0), jitter=0.5), clock)
    given = waiting(1000 + 200)
    stage.submit([given])
    clock.now += 89.999  # the longest delay, with its jitter
    assert stage.poll(0) == []
    clock.now += 0.001
    again = Output(Stream.RETRY, b"k", b"task", given.headers, tier=1)
    assert stage.poll(0) == [Done(given, (again,))]
    assert stage.in_flight == 0


def test_a_task_is_due_to_the_moment_however_often_it_was_sent_around() -> None:
    clock = Clock()
    stage = RetryStage(Retry(delays_s=(60.0,), jitter=0.0), clock)
    stage.submit([waiting(1000 + 150)])
    found = {}
    for now in range(1000, 1200):
        clock.now = now
        for outcome in stage.poll(0):
            found[now] = streams([outcome])
            if found[now] == [Stream.RETRY]:
                stage.submit([waiting(1000 + 150)])
    assert found == {1060: [Stream.RETRY], 1120: [Stream.RETRY], 1150: [Stream.PENDING]}


def test_one_that_waits_for_a_day_holds_up_nothing_behind_it() -> None:
    clock = Clock()
    stage = RetryStage(clock=clock)
    stage.submit([waiting(1000 + 86_400, 0), *(waiting(1000 + 300, offset) for offset in range(1, 50))])
    clock.now = 1300
    assert [outcome.record.offset for outcome in stage.poll(0)] == list(range(1, 50))
    assert stage.in_flight == 1


def test_where_the_writers_clock_was_ahead_the_wait_it_meant_is_what_counts() -> None:
    clock = Clock()
    stage = RetryStage(clock=clock)
    written = 1000.0 + 1800  # its clock is half an hour ahead
    headers: list[tuple[str, str | bytes | None]] = [("not_before", b"%d" % round((written + 5) * 1000))]
    stage.submit([record(b"task", headers=headers, timestamp=round(written * 1000))])
    clock.now = 1004.9
    assert stage.poll(0) == []
    clock.now = 1005.0
    (outcome,) = stage.poll(0)
    assert isinstance(outcome, Done)
    assert outcome.outputs[0].stream == Stream.PENDING

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelined.kafka.progress import LIMIT, Progress, decode
from pipelined.kafka.window import BackwardsError, Window
from pipelined.stages.contract import Partition, Record
from records import ARRIVED, P0, P1, record


def records(partition: Partition, offsets: list[int] | range) -> list[Record]:
    return [record(offset=offset, partition=partition) for offset in offsets]


def window_of(*taken: Record, now: float = 0.0) -> Window[Any]:
    """A window that has just taken these, its partitions assigned at offset 0."""
    window: Window[Any] = Window()
    window.assign({one.partition: Progress.up_to(0) for one in taken})
    assert window.take(taken, now) == list(taken)
    return window


class Broker:
    """What is durable: the records of two partitions, the last commit of each, and the outputs."""

    def __init__(self, lanes: list[list[int]]) -> None:
        self.log = {
            partition: records(partition, lane) for partition, lane in zip((P0, P1), lanes, strict=True)
        }
        self.committed = dict.fromkeys(self.log, (0, b""))
        self.outputs: list[tuple[Partition, int]] = []

    def owner(self, partitions: list[Partition]) -> tuple[Window[int], list[Record]]:
        """A new owner's window of these partitions, and the records it took, those done already left out."""
        window: Window[int] = Window()
        window.assign({p: decode(*self.committed[p]) for p in partitions})
        fresh = []
        for partition in partitions:
            unread = [r for r in self.log[partition] if r.offset >= self.committed[partition][0]]
            # Read anew: equal to what a predecessor had, and not the same.
            unread = [record(offset=r.offset, partition=partition) for r in unread]
            fresh += window.take(unread, 0.0)
        return window, fresh


@settings(max_examples=150)
@given(st.lists(st.sets(st.integers(0, 200), max_size=25).map(sorted), min_size=2, max_size=2), st.data())
def test_in_any_order_with_any_aborts_and_crashes_each_record_is_done_once(
    lanes: list[list[int]], data: Any
) -> None:
    broker = Broker(lanes)
    window, todo = broker.owner([P0, P1])
    assert len(window) == len(todo)
    steps = 0
    while todo:
        steps += 1
        one = todo.pop(data.draw(st.integers(0, len(todo) - 1)) if steps < 60 else 0)
        assert window.settle(one, one.offset)
        assert not window.settle(one, -1), "a second result of one record has no effect"
        what = (
            data.draw(st.sampled_from(["wait", "commit", "abort", "crash", "move"]))
            if steps < 60
            else "commit"
        )
        if what in {"commit", "abort"}:
            released = window.release()
            assert [r.offset for r in released.records] == released.results
            if what == "abort":
                window.restore(released)
                again = window.release()
                assert again == released
                released = again
            commit(broker, released)
        elif what == "crash":
            window, todo = broker.owner([P0, P1])
        elif what == "move":  # P1 goes to another owner and comes back: what was in hand for it is dropped
            window.forget([P1])
            stale = [r for r in todo if r.partition == P1]
            _, of_other = broker.owner([P1])
            window.assign({P1: decode(*broker.committed[P1])})
            fresh = window.take(of_other, 0.0)
            assert fresh == of_other
            assert not any(window.settle(r, r.offset) for r in stale), "late results of a former assignment"
            todo = [r for r in todo if r.partition == P0] + list(fresh)
    commit(broker, window.release())
    assert sorted(broker.outputs) == [
        (p, offset) for p, lane in zip((P0, P1), lanes, strict=True) for offset in lane
    ]
    assert (len(window), window.open([P0, P1])) == (0, 0)


def commit(broker: Broker, released: Any) -> None:
    """One transaction: the outputs and the offsets, together."""
    broker.outputs += [(r.partition, r.offset) for r in released.records]
    for partition, (progress, beyond) in released.commits.items():
        assert progress.offset >= broker.committed[partition][0], "a commit never goes back"
        assert decode(progress.offset, beyond) == progress
        broker.committed[partition] = (progress.offset, beyond)


def test_a_slow_record_holds_up_nobody_and_is_what_the_commit_points_at() -> None:
    slow, *quick = records(P0, [4, 5, 9])
    window = window_of(slow, *quick)
    for one in quick:
        assert window.settle(one, "done")
    released = window.release()
    assert released.records == quick
    assert released.commits[P0].progress == Progress(4, ((4, 5),), 10)
    assert (window.count(P0), window.open([P0]), window.holds(slow)) == (1, 1, True)
    assert window.release().commits == {}, "nothing new, nothing to commit"
    window.settle(slow, "at last")
    released = window.release()
    assert (released.results, released.commits[P0].progress) == (["at last"], Progress.up_to(10))
    assert released.commits[P0].beyond == b""


def test_the_next_owner_is_not_given_what_is_done_and_keeps_what_it_has_not_read_yet() -> None:
    window: Window[str] = Window()
    window.assign({P0: Progress(10, ((10, 11), (13, 15), (18, 19)), 30)})
    first, done = records(P0, [10, 11])
    assert window.take([first, done], 0.0) == [first]
    window.settle(first, "x")
    commit = window.release().commits[P0]
    assert commit.progress == Progress(13, ((13, 15), (18, 19)), 30)
    rest = records(P0, range(12, 33))
    assert [r.offset for r in window.take(rest, 0.0)] == [13, 14, 18, 30, 31, 32]


def test_an_open_run_of_a_predecessor_that_touches_ours_is_one_run() -> None:
    window: Window[str] = Window()
    window.assign({P0: Progress(10, ((10, 15),), 30)})
    first, second = records(P0, [10, 11])
    window.take([first, second], 0.0)
    window.settle(first, "x")
    commit = window.release().commits[P0]
    assert decode(commit.progress.offset, commit.beyond) == Progress(11, ((11, 15),), 30)


def test_what_the_encoding_has_no_room_for_waits_for_a_later_release() -> None:
    every = records(P0, range(200_000))
    window = window_of(*every)
    for one in every[1::2]:
        window.settle(one, one.offset)
    released = window.release()
    commit = released.commits[P0]
    assert len(commit.beyond) <= LIMIT
    assert 0 < len(released.records) < 100_000
    assert max(r.offset for r in released.records) < commit.progress.end
    assert len(window) == 200_000 - len(released.records)
    for one in every[::2]:
        window.settle(one, one.offset)
    rest = window.release()
    assert sorted(released.results + rest.results) == list(range(200_000))
    assert rest.commits[P0].progress == Progress.up_to(200_000)


def test_a_record_from_before_one_that_came_is_refused() -> None:
    window = window_of(*records(P0, [7]))
    with pytest.raises(BackwardsError):
        window.take(records(P0, [3]), 0.0)


def test_a_partition_given_up_takes_its_results_with_it() -> None:
    (here,), (there,) = records(P0, [1]), records(P1, [1])
    window = window_of(here, there)
    window.settle(there, "kept")
    released = window.release()
    window.forget([P1])
    window.restore(released)
    assert len(window) == 1
    assert not window.settle(there, "late")
    assert window.holds(here)


def test_only_the_first_open_record_of_a_partition_is_stuck_and_only_after_its_time() -> None:
    early, later = records(P0, [1, 2])
    window = window_of(early, now=100.0)
    window.take([later], 105.0)
    assert window.stuck(100.0) == []
    assert window.stuck(101.0) == [early]
    window.settle(early, "x")
    assert window.stuck(101.0) == []
    assert window.stuck(106.0) == [later]
    window.excuse(200.0)
    assert window.stuck(150.0) == []
    assert window.stuck(201.0) == [later]


def test_the_oldest_arrival_is_that_of_what_is_open_or_waits_to_be_committed() -> None:
    window: Window[str] = Window()
    assert window.oldest() is None
    window.assign({P0: Progress.up_to(0), P1: Progress.up_to(0)})
    old = record(offset=1, timestamp=ARRIVED - 500)
    new = record(offset=1, partition=P1)
    window.take([old, new], 0.0)
    assert window.oldest() == ARRIVED - 500
    window.settle(old, "x")
    assert window.oldest() == ARRIVED - 500
    window.release()
    assert window.oldest() == ARRIVED


def test_many_partitions_are_kept_apart_however_their_records_mix() -> None:
    lanes = [records(partition, range(50)) for partition in (P0, P1)]
    mixed = list(itertools.chain(*zip(*lanes, strict=True)))
    window = window_of(*mixed)
    for one in mixed:
        if one.offset != (7 if one.partition == P0 else 9):
            window.settle(one, one.offset)
    commits = window.release().commits
    assert {p: c.progress for p, c in commits.items()} == {
        P0: Progress(7, ((7, 8),), 50),
        P1: Progress(9, ((9, 10),), 50),
    }

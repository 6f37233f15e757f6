from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelined.kafka.window import Window
from pipelined.stages.contract import Partition, Record
from records import ARRIVED, P0, P1, record


def records(partition: Partition, offsets: list[int]) -> list[Record]:
    return [record(offset=offset, partition=partition) for offset in offsets]


def release(window: Window[str]) -> tuple[list[tuple[int, int]], list[str], dict[Partition, int]]:
    released, results, offsets = window.release()
    return [(r.partition.number, r.offset) for r in released], results, offsets


#: Offsets of two partitions, with the gaps that transaction markers leave.
lanes = st.lists(st.sets(st.integers(0, 60), max_size=12).map(sorted), min_size=2, max_size=2)


@given(lanes, st.data())
def test_whatever_the_order_of_settling_each_record_is_released_once_and_in_order(
    lanes: list[list[int]], data: Any
) -> None:
    window: Window[int] = Window()
    taken = [
        r for partition, offsets in zip((P0, P1), lanes, strict=True) for r in records(partition, offsets)
    ]
    window.take(taken)
    assert len(window) == len(taken)
    committed: dict[Partition, int] = {}
    seen: dict[Partition, list[int]] = {P0: [], P1: []}
    settled: set[tuple[Partition, int]] = set()
    for one in data.draw(st.permutations(taken)):
        assert window.settle(one, one.offset)
        assert not window.settle(one, -1), "a second result of one record has no effect"
        settled.add((one.partition, one.offset))
        if data.draw(st.booleans()):
            continue
        released, results, offsets = window.release()
        assert results == [r.offset for r in released]
        if released and data.draw(st.booleans()):  # the transaction is aborted, and tried again
            window.restore(released, results)
            assert window.release() == (released, results, offsets)
        committed |= offsets
        for r in released:
            seen[r.partition].append(r.offset)
        for partition, offset in offsets.items():
            assert offset == seen[partition][-1] + 1
            below = [r for r in taken if r.partition == partition and r.offset < offset]
            assert {(r.partition, r.offset) for r in below} <= settled, "committed past an open record"
    released, _, offsets = window.release()
    for r in released:
        seen[r.partition].append(r.offset)
    assert [seen[P0], seen[P1]] == lanes
    assert len(window) == 0
    assert window.open([P0, P1]) == 0
    assert committed | offsets == {
        p: offsets[-1] + 1 for p, offsets in zip((P0, P1), lanes, strict=True) if offsets
    }


def test_nothing_is_released_behind_an_open_record_and_partitions_do_not_wait_for_each_other() -> None:
    window: Window[str] = Window()
    first, second, third = records(P0, [4, 5, 9])
    (other,) = records(P1, [7])
    window.take([first, second, third, other])
    window.settle(second, "b")
    window.settle(other, "o")
    assert release(window) == ([(1, 7)], ["o"], {P1: 8})
    assert (window.count(P0), window.open([P0]), window.open([P0, P1])) == (3, 2, 2)
    window.settle(first, "a")
    assert release(window) == ([(0, 4), (0, 5)], ["a", "b"], {P0: 6})
    window.settle(third, "c")
    assert release(window) == ([(0, 9)], ["c"], {P0: 10})
    assert release(window) == ([], [], {})


def test_what_an_abort_gave_back_comes_before_what_was_taken_and_settled_meanwhile() -> None:
    window: Window[str] = Window()
    first, second, third = records(P0, [0, 1, 2])
    window.take([first, second])
    window.settle(first, "a")
    released, results, _ = window.release()
    window.take([third])
    window.settle(second, "b")
    window.settle(third, "c")
    window.restore(released, results)
    assert len(window) == 3
    assert window.open([P0]) == 0
    assert release(window) == ([(0, 0), (0, 1), (0, 2)], ["a", "b", "c"], {P0: 3})


def test_what_is_forgotten_is_neither_released_nor_counted_and_cannot_be_settled() -> None:
    window: Window[str] = Window()
    first, second = records(P0, [0, 1])
    (other,) = records(P1, [0])
    window.take([first, second, other])
    window.settle(first, "a")
    window.forget([P0, Partition("unknown", 3)])
    assert (len(window), window.count(P0), window.open([P0])) == (1, 0, 0)
    assert not window.settle(second, "b")
    assert release(window) == ([], [], {})
    window.settle(other, "o")
    assert release(window) == ([(1, 0)], ["o"], {P1: 1})


def test_a_late_result_of_an_earlier_assignment_never_counts_for_the_record_read_again() -> None:
    window: Window[str] = Window()
    (stale,) = records(P0, [3])
    window.take([stale])
    window.forget([P0])
    (again,) = records(P0, [3])
    window.take([again])
    assert again == stale, "equal, and yet another one"
    assert not window.settle(stale, "stale")
    assert window.open([P0]) == 1
    assert window.settle(again, "again")
    assert release(window) == ([(0, 3)], ["again"], {P0: 4})


def test_a_result_of_a_record_that_was_released_already_has_no_effect() -> None:
    window: Window[str] = Window()
    (one,) = records(P0, [3])
    window.take([one])
    window.settle(one, "a")
    window.release()
    assert not window.settle(one, "b")
    assert release(window) == ([], [], {})


def test_the_oldest_is_the_earliest_arrival_at_the_head_of_a_partition() -> None:
    window: Window[str] = Window()
    assert window.oldest() is None
    late = record(offset=0, timestamp=ARRIVED + 50)
    early = record(offset=0, partition=P1, timestamp=ARRIVED)
    window.take([late, early])
    assert window.oldest() == ARRIVED
    window.settle(early, "x")
    window.release()
    assert window.oldest() == ARRIVED + 50


def test_an_abort_must_give_back_as_many_results_as_records() -> None:
    window: Window[str] = Window()
    with pytest.raises(ValueError, match="argument"):
        window.restore(records(P0, [0, 1]), ["a"])

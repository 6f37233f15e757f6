from __future__ import annotations

from pipelined.stages.contract import Partition
from pipelined.workers.buffer import Buffer
from records import ARRIVED, P0, P1, record


def test_records_are_kept_by_partition_in_order_and_counted_with_their_bytes() -> None:
    buffer = Buffer()
    buffer.add([record(b"abc", 1), record(b"de", 1, P1), record(b"f", 2)])
    buffer.add([record(b"", 5, P1)])
    assert {p: [r.offset for r in lane] for p, lane in buffer.partitions.items()} == {P0: [1, 2], P1: [1, 5]}
    assert (len(buffer), buffer.size) == (4, 6)


def test_what_is_forgotten_counts_no_more() -> None:
    buffer = Buffer()
    buffer.add([record(b"abc"), record(b"de", 1, P1)])
    buffer.forget([P0, Partition("unknown", 1)])
    assert (len(buffer), buffer.size, list(buffer.partitions)) == (1, 2, [P1])


def test_a_cleared_buffer_is_empty() -> None:
    buffer = Buffer()
    buffer.add([record(b"abc")])
    held = buffer.partitions
    buffer.clear()
    assert (len(buffer), buffer.size, buffer.partitions, buffer.oldest()) == (0, 0, {}, None)
    assert len(held) == 1, "what somebody still reads is not emptied under them"


def test_the_oldest_is_the_earliest_arrival() -> None:
    buffer = Buffer()
    assert buffer.oldest() is None
    buffer.add([record(timestamp=ARRIVED + 5), record(partition=P1, timestamp=ARRIVED)])
    assert buffer.oldest() == ARRIVED

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pipelined.stages.contract import Done, Outcome, Output, Partition, Record, Stream
from pipelined.stages.relocate import Relocating
from records import ARRIVED, P0, P1, record


class Inner:
    """Takes everything, and says what it was told."""

    name = "event-ingester"
    waits = False

    def __init__(self) -> None:
        self.taken: list[Record] = []
        self.told: list[object] = []

    @property
    def in_flight(self) -> int:
        return len(self.taken)

    def assigned(self, partitions: Iterable[Partition]) -> None:
        self.told.append(("assigned", list(partitions)))

    def forget(self, partitions: Iterable[Partition]) -> None:
        self.told.append(("forget", set(partitions)))

    def submit(self, records: Sequence[Record]) -> None:
        self.taken += records

    def poll(self, timeout: float) -> list[Outcome]:
        taken, self.taken = self.taken, []
        return [Done(one) for one in taken]

    def committed(self, outcomes: Sequence[Outcome]) -> None:
        self.told.append(("committed", len(outcomes)))

    def give_up(self, records: Sequence[Record]) -> None:
        self.told.append(("give_up", len(records)))

    def drain(self) -> None:
        self.told.append("drain")

    def close(self) -> None:
        self.told.append("close")


def stage(inner: Inner, until: int = ARRIVED) -> Relocating:
    """Three partitions; a key is its number."""
    made = Relocating(inner, lambda: (3, until) if until else (0, 0), lambda key, count: int(key) % count)
    made.assigned([P0, P1])
    return made


def test_a_record_of_another_partition_is_sent_there_as_it_is() -> None:
    inner = Inner()
    moving = stage(inner)
    here = record(b"h", 0, P0, key=b"3")
    there = record(b"t", 1, P0, key=b"5", headers=[("source", b"x")])
    moving.submit([here, there])
    assert moving.in_flight == 2
    assert inner.taken == [here]
    again = Output(Stream.RAW, b"5", b"t", [("source", b"x")], 2, ARRIVED)
    assert moving.poll(0) == [Done(there, (again,), "moved"), Done(here)]
    assert moving.in_flight == 0


def test_what_has_no_key_or_came_later_or_after_no_growth_is_left_where_it_is() -> None:
    inner = Inner()
    moving = stage(inner)
    given = [record(b"k", 0, P0), record(b"l", 1, P0, key=b"5", timestamp=ARRIVED + 1)]
    moving.submit(given)
    assert inner.taken == given
    still = stage(calm := Inner(), until=0)
    still.submit([record(b"t", 1, P0, key=b"5")])
    assert len(calm.taken) == 1


def test_the_partition_of_a_moved_record_may_go_before_it_is_polled() -> None:
    moving = stage(Inner())
    moving.submit([record(b"a", 0, P0, key=b"5"), record(b"b", 0, P1, key=b"5")])
    moving.forget([P0])
    assert [outcome.record.partition for outcome in moving.poll(0)] == [P1]


def test_everything_else_is_the_stages_own_affair() -> None:
    inner = Inner()
    moving = stage(inner)
    one = record(b"x", 0, P0, key=b"0")
    moving.committed([Done(one)])
    moving.give_up([one])
    moving.drain()
    moving.close()
    assert inner.told == [("assigned", [P0, P1]), ("committed", 1), ("give_up", 1), "drain", "close"]
    assert (moving.name, moving.waits) == ("event-ingester", False)

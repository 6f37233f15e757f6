"""The position in a hub, held against what the hub has, and whether what waits in it comes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelined.errors import ConfigError
from pipelined.kafka.hub import Bounds
from pipelined.sources.hub_position import Lost, Place, Position, read_position
from pipelined.sources.hub_watch import Watch


def at(*nexts: int, topic_id: str = "id") -> Position:
    places = {number: Place(offset, offset - 1, 1000 + offset) for number, offset in enumerate(nexts)}
    return Position(hub="h/t", topic_id=topic_id, partitions=places)


@given(
    st.dictionaries(
        st.integers(0, 2**31 - 1),
        st.builds(Place, st.integers(0, 2**63 - 1), st.integers(-1, 2**63 - 1), st.integers(-1, 2**62)),
        max_size=40,
    ),
    st.text(max_size=30),
)
def test_a_position_is_read_as_it_was_written(places: dict[int, Place], topic_id: str) -> None:
    position = Position(hub="h/t", topic_id=topic_id, partitions=places)
    assert read_position(position.encoded()) == position


def test_a_position_within_the_hub_stays() -> None:
    position = at(5, 0)
    assert position.held_against("id", {0: Bounds(0, 5), 1: Bounds(0, 9)}) == []
    assert [place.next for place in position.partitions.values()] == [5, 0]


def test_what_is_gone_is_told_and_passed_over() -> None:
    position = at(5, 7)
    assert position.held_against("id", {0: Bounds(9, 20), 1: Bounds(7, 7)}) == [Lost(0, 5, 9)]
    assert position.partitions[0].next == 9


@pytest.mark.parametrize(
    ("topic_id", "bounds", "words"),
    [
        ("other", {0: Bounds(0, 50)}, "deleted and made again"),
        ("id", {}, "partition 0 was read"),
        ("id", {0: Bounds(0, 3)}, "up to offset 5, but it ends at 3"),
    ],
)
def test_another_hub_is_the_operators_decision(topic_id: str, bounds: dict[int, Bounds], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        at(5).held_against(topic_id, bounds)
    assert "pipelinectl sources reset" in str(caught.value)


def test_an_end_that_is_told_as_the_last_record_is_no_end_of_the_hub() -> None:
    assert at(5).held_against("id", {0: Bounds(0, 4)}) == []
    with pytest.raises(ConfigError, match="it ends at 4"):
        at(5).held_against("id", {0: Bounds(0, 4)}, refused={0})


def test_an_id_that_is_not_told_says_nothing_and_one_that_is_told_is_kept() -> None:
    position = at(5, topic_id="")
    position.held_against("id", {0: Bounds(0, 5)})
    assert position.topic_id == "id"
    position.held_against("", {0: Bounds(0, 5)})
    assert position.topic_id == "id"


def test_the_last_record_is_recognised_by_its_time() -> None:
    position = at(5)
    assert position.recognised(0, 4, 1005)
    assert not position.recognised(0, 5, 1)
    with pytest.raises(ConfigError, match="another event at offset 4"):
        position.recognised(0, 4, 1006)


def test_what_waits_is_watched_for_each_partition_by_itself() -> None:
    watch, position = Watch(), at(5, 5)
    assert watch.stalled(position, {0: 5, 1: 5}, 100.0) == 0
    assert watch.stalled(position, {0: 6, 1: 5}, 110.0) == 0
    position.partitions[1].next = 9  # the other one moves
    assert watch.stalled(position, {0: 6, 1: 20}, 125.0) == 15
    position.partitions[0].next = 6
    assert watch.stalled(position, {0: 9, 1: 20}, 130.0) == 5  # now it is the other one
    watch.reset()
    assert watch.stalled(position, {0: 9, 1: 20}, 140.0) == 0

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from pipelined.messages.identity import identity
from pipelined.stages.dedup import Horizon

HOUR = 3_600_000
BEGAN = 1_767_622_951_480


def admit(known: Horizon, name: str, arrival: int) -> bool:
    """As the ingester does: True where the event is new."""
    trace = identity(name.encode())
    if trace in known:
        return False
    known.add(trace, arrival, 1)
    return True


def admit_all(known: Horizon, traces: list[bytes], arrivals: list[int]) -> list[bool]:
    """The same for a batch of one source."""
    return [not before for before in known.admit(traces, arrivals, [1] * len(traces))]


def test_an_identity_is_new_once() -> None:
    known = Horizon(24)
    assert admit(known, "a", BEGAN)
    assert not admit(known, "a", BEGAN)
    assert not admit(known, "a", BEGAN + 23 * HOUR)
    assert known.size == 1


def test_what_is_older_than_the_horizon_is_forgotten_and_new_again() -> None:
    known = Horizon(24)
    admit(known, "a", BEGAN)
    admit(known, "b", BEGAN + 12 * HOUR)
    admit(known, "c", BEGAN + 26 * HOUR)
    assert known.size == 2
    assert admit(known, "a", BEGAN + 26 * HOUR)
    assert not admit(known, "b", BEGAN + 26 * HOUR)


def test_age_is_judged_by_arrivals_and_not_by_the_clock() -> None:
    known = Horizon(1)  # arrivals of long ago: a backlog after a long stop
    long_ago = BEGAN - 1000 * HOUR
    assert admit(known, "a", long_ago)
    assert not admit(known, "a", long_ago + HOUR // 2)
    assert known.size == 1


def test_a_late_arrival_does_not_make_newer_ones_forgotten() -> None:
    known = Horizon(24)
    admit(known, "new", BEGAN)
    assert admit(known, "late", BEGAN - 20 * HOUR)
    assert not admit(known, "new", BEGAN)
    assert not admit(known, "late", BEGAN)


def test_a_single_arrival_far_ahead_forgets_only_what_is_beyond_its_horizon() -> None:
    known = Horizon(24)
    for hour in range(24):
        admit(known, f"h{hour}", BEGAN + hour * HOUR)
    admit(known, "ahead", BEGAN + 30 * HOUR)
    assert not admit(known, "h23", BEGAN + 30 * HOUR)
    assert admit(known, "h0", BEGAN + 30 * HOUR)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 100 * HOUR)), max_size=80))
def test_within_the_horizon_nothing_is_ever_new_twice_and_the_size_is_what_is_held(
    arrivals: list[tuple[int, int]],
) -> None:
    known = Horizon(24)
    admitted: dict[int, int] = {}
    newest = 0
    for name, arrival in arrivals:
        new = admit(known, str(name), arrival)
        before = admitted.get(name)
        if before is not None and max(newest, arrival) - before <= 24 * HOUR:
            assert not new, f"{name} of {before} was forgotten at {arrival}"
        if new:
            admitted[name] = arrival
        newest = max(newest, arrival)
    # One bucket more than the horizon is held at most, and late ones until the next hour begins.
    assert known.size <= len(admitted)


def ids(numbers: range) -> list[bytes]:
    return [identity(b"%d" % number) for number in numbers]


def test_a_batch_is_judged_as_its_records_one_by_one_would_be() -> None:
    known = Horizon(24)
    first, again = ids(range(5000)), ids(range(4000, 6000))
    assert admit_all(known, first, [BEGAN] * 5000) == [True] * 5000
    assert admit_all(known, again, [BEGAN] * 2000) == [False] * 1000 + [True] * 1000
    assert admit_all(known, [b"x" * 16, b"x" * 16], [BEGAN] * 2) == [True, False]
    assert known.size == 6001
    assert all(trace in known for trace in first + again)


def test_identities_that_resemble_each_other_are_told_apart() -> None:
    known = Horizon(24)
    alike = [bytes(16), b"\1" + bytes(15), bytes(15) + b"\1", b"\1" * 16, bytes(8) + b"\1" * 8]
    alike += [number.to_bytes(16, "big") for number in range(2, 300)]
    assert admit_all(known, alike, [BEGAN] * len(alike)) == [True] * len(alike)
    assert admit_all(known, alike, [BEGAN] * len(alike)) == [False] * len(alike)
    assert bytes(14) + b"\1\1" in known
    assert bytes(14) + b"\7\1" not in known


def test_one_that_comes_late_is_remembered_for_the_whole_horizon_from_then_on() -> None:
    known = Horizon(24)
    admit(known, "newest", BEGAN)
    assert admit(known, "late", BEGAN - 40 * HOUR)
    for hour in range(24):
        admit(known, f"h{hour}", BEGAN + hour * HOUR)
        assert not admit(known, "late", BEGAN - 40 * HOUR)
    admit(known, "next day", BEGAN + 26 * HOUR)
    assert admit(known, "late", BEGAN + 26 * HOUR)


def test_what_is_read_back_is_known_as_if_it_had_been_admitted() -> None:
    known, loaded = Horizon(24), Horizon(24)
    arrivals = [BEGAN + number * HOUR // 50 for number in range(2000)]
    assert admit_all(known, ids(range(2000)), arrivals) == [True] * 2000
    for start in range(0, 2000, 333):
        some = ids(range(start, min(2000, start + 333)))
        loaded.load(some, arrivals[start : start + 333], [1] * len(some))
    assert known.size == loaded.size < 1300
    again = ids(range(0, 2100, 3))
    later = [arrivals[-1]] * len(again)
    assert admit_all(known, again, later) == admit_all(loaded, again, later)


def test_days_go_by_and_only_the_horizon_is_held() -> None:
    known = Horizon(24)
    for hour in range(24 * 20):  # long enough for the marks of the buckets to come round
        admit_all(known, ids(range(hour * 100, hour * 100 + 100)), [BEGAN + hour * HOUR] * 100)
        assert known.size <= 2500
    last = 24 * 20 * 100
    assert all(trace in known for trace in ids(range(last - 2400, last)))
    assert not any(trace in known for trace in ids(range(last - 2500)))
    assert sum(map(len, known._shards)) < 18 * 4000  # and not only hidden


def test_after_a_burst_the_memory_is_given_back_though_little_comes() -> None:
    known = Horizon(24)
    admit_all(known, ids(range(100_000)), [BEGAN] * 100_000)
    for hour in range(1, 120):
        known.add(identity(b"later %d" % hour), BEGAN + hour * HOUR, 1)
    assert known.size == 25
    assert sum(map(len, known._shards)) < 18 * 100


def test_what_was_admitted_before_the_topic_grew_is_known_until_the_horizon_is_over() -> None:
    before = Horizon(24)
    admit_all(before, ids(range(100)), [BEGAN] * 100)
    known = Horizon(24, before)
    assert admit_all(known, ids(range(90, 110)), [BEGAN + 1] * 20) == [False] * 10 + [True] * 10
    assert identity(b"5") in known
    assert known.size == 10
    known.add(b"n" * 16, BEGAN + 23 * HOUR, 1)
    assert not admit_all(known, ids(range(1)), [BEGAN + 24 * HOUR])[0]
    known.add(b"m" * 16, BEGAN + 26 * HOUR, 1)
    assert identity(b"5") not in known


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 60 * HOUR)), max_size=300),
        max_size=10,
    )
)
def test_batches_and_single_steps_agree_with_a_plain_memory(
    batches: list[list[tuple[int, int]]],
) -> None:
    whole, single = Horizon(24), Horizon(24)
    width, newest, plain = HOUR, -1, dict[bytes, int]()
    for batch in batches:
        traces = [identity(b"%d" % name) for name, _ in batch]
        expected = []
        for trace, (_, arrival) in zip(traces, batch, strict=True):
            expected.append(plain.get(trace, -100) < newest - 24)
            if expected[-1]:
                newest = max(newest, arrival // width)
                plain[trace] = newest
        assert admit_all(whole, traces, [arrival for _, arrival in batch]) == expected
        for trace, (_, arrival), new in zip(traces, batch, expected, strict=True):
            assert (trace not in single) == new
            if new:
                single.add(trace, arrival, 1)
        assert whole.size == single.size == sum(bucket >= newest - 24 for bucket in plain.values())


def test_who_brought_an_identity_is_remembered_with_it() -> None:
    known = Horizon(24)
    traces = ids(range(1000))
    assert known.admit(traces, [BEGAN] * 1000, [1] * 1000) == [0] * 1000
    assert known.admit(traces[:500], [BEGAN] * 500, [2] * 500) == [1] * 500
    assert known.admit(traces, [BEGAN] * 1000, [8] * 1000) == [3] * 500 + [1] * 500
    known.admit(ids(range(1000, 9000)), [BEGAN] * 8000, [4] * 8000)  # it grows, and keeps them
    assert known.admit(traces, [BEGAN] * 1000, [1] * 1000) == [11] * 500 + [9] * 500
    assert known.size == 9000


def test_who_brought_it_is_told_within_a_batch_and_forgotten_with_it() -> None:
    known = Horizon(24)
    twice = ids(range(1)) * 2
    assert known.admit(twice, [BEGAN] * 2, [2, 1]) == [0, 2]
    assert known.admit(twice, [BEGAN, BEGAN + 40 * HOUR], [4, 4]) == [3, 7]
    known.add(b"x" * 16, BEGAN + 40 * HOUR, 1)
    assert known.admit(twice, [BEGAN + 40 * HOUR] * 2, [8, 1]) == [0, 8]


def test_who_brought_it_before_the_topic_grew_is_known_too() -> None:
    before = Horizon(24)
    before.load(ids(range(10)), [BEGAN] * 10, [1] * 5 + [2] * 5)
    one, other = Horizon(24, before), Horizon(24, before)
    assert one.admit(ids(range(10)), [BEGAN] * 10, [2] * 10) == [1] * 5 + [2] * 5
    assert other.admit(ids(range(10)), [BEGAN] * 10, [4] * 10) == [3] * 5 + [2] * 5


def test_an_identity_that_is_not_known_was_brought_by_nobody() -> None:
    known = Horizon(24)
    assert known.brought(b"x" * 16, 1) == 0
    known.add(b"x" * 16, BEGAN, 2)
    assert known.brought(b"x" * 16, 1) == 2
    assert known.brought(b"x" * 16, 1) == 3

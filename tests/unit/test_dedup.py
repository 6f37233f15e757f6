from __future__ import annotations

from hypothesis import given
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
    known.add(trace, arrival)
    return True


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

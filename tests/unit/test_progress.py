from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelined.kafka.progress import LIMIT, Progress, decode, encode, runs_of


@st.composite
def states(draw: st.DrawFn) -> tuple[int, list[int], int]:
    """A first offset, open offsets in ascending order, and the end."""
    base = draw(st.integers(0, 2**60))
    opened = draw(st.sets(st.integers(0, 400), max_size=200).map(sorted))
    tail = draw(st.integers(0, 100_000))
    opened = [base + offset for offset in opened]
    return base, opened, (opened[-1] + 1 if opened else base) + tail


@given(states())
def test_what_is_encoded_is_decoded_to_the_same(state: tuple[int, list[int], int]) -> None:
    base, opened, end = state
    progress, encoded = encode(runs_of(opened), end)
    assert len(encoded) <= LIMIT
    if not opened:
        assert (progress, encoded) == (Progress.up_to(end), b"")
    decoded = decode(progress.offset, encoded)
    assert decoded == progress
    still = set(opened)
    for offset in range(base, min(end, base + 600)):
        assert decoded.is_done(offset) == (offset not in still)


def test_a_state_that_does_not_fit_is_cut_and_never_calls_an_open_record_done() -> None:
    rng = random.Random(7)
    opened = sorted(rng.sample(range(100_000), 30_000))
    progress, encoded = encode(runs_of(opened), 100_000)
    assert len(encoded) <= LIMIT
    assert 8 * (LIMIT - 10) < progress.end - progress.offset < 100_000
    decoded = decode(progress.offset, encoded)
    still = set(opened)
    for offset in range(100_000):
        if offset in still or offset >= progress.end:
            assert not decoded.is_done(offset)
        else:
            assert decoded.is_done(offset)


def test_every_other_record_open_over_a_long_span_fits_up_to_the_limit() -> None:
    opened = range(10, 200_010, 2)
    progress, encoded = encode(runs_of(opened), 200_010)
    assert len(encoded) <= LIMIT
    assert decode(10, encoded).end == progress.end > 10 + 8 * (LIMIT - 2)


def test_one_open_record_far_behind_takes_a_few_bytes() -> None:
    progress, encoded = encode([(5, 6)], 5_000_000)
    assert (progress.end, len(encoded)) == (5_000_000, 6)


def test_a_thousand_open_records_among_a_million_fit_whole() -> None:
    rng = random.Random(1)
    opened = sorted(rng.sample(range(1_000_000), 1000))
    progress, encoded = encode(runs_of(opened), 1_000_000)
    assert progress.end == 1_000_000
    assert len(encoded) < LIMIT


def test_the_shorter_of_both_encodings_is_taken() -> None:
    many = runs_of(range(0, 2000, 2))
    assert len(encode(many, 2000)[1]) <= 1 + 250
    assert len(encode([(0, 1)], 2000)[1]) == 4


@pytest.mark.parametrize(
    "damaged", [b"\x00", b"\x09abc", b"\x01", b"\x01\x05", b"\x01\x85", b"\x01\x00\x05", b"\x02", b"\x02\x01"]
)
def test_what_is_no_encoding_is_refused(damaged: bytes) -> None:
    with pytest.raises(ValueError, match=r"its|unknown"):
        decode(0, damaged)

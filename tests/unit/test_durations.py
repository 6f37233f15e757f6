"""Lengths of time, typed and shown."""

from __future__ import annotations

import click
import pytest

from pipelined.cli.durations import duration, length, short


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("30s", 30.0),
        ("2m", 120.0),
        ("1h30m", 5400.0),
        ("500ms", 0.5),
        ("1.5", 1.5),
        (" 0 ", 0.0),
        ("1D", 86400.0),
        (".5m", 30.0),
    ],
)
def test_a_length_of_time_is_read(text: str, length: float) -> None:
    assert duration(text) == pytest.approx(length)


@pytest.mark.parametrize("text", ["30", "1.5", "", "2026-11-24"])
def test_a_length_has_its_unit(text: str) -> None:
    assert length(text) is None
    assert length("1m30s") == 90.0


@pytest.mark.parametrize("text", ["", "soon", "3x", "-1", "-5s", "nan", "inf", "1 h 2"])
def test_what_is_no_length_of_time_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="write it as 30s, 2m or 1h30m"):
        duration(text)


@pytest.mark.parametrize(
    ("length", "text"),
    [
        (-3, "0s"),
        (0.9, "0s"),
        (59.9, "59s"),
        (192, "3m12s"),
        (3600, "1h00m"),
        (18_240, "5h04m"),
        (3 * 86400 + 7 * 3600 + 59, "3d07h"),
    ],
)
def test_a_length_of_time_is_told_by_its_two_largest_units(length: float, text: str) -> None:
    assert short(length) == text

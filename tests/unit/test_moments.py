from __future__ import annotations

import time

import click
import pytest

from pipelined.cli.moments import moment


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("10m", 600), ("2h", 7200), ("1h30m", 5400), ("1.5d", 129600)]
)
def test_a_length_of_time_is_so_long_ago(text: str, seconds: float) -> None:
    assert moment(text) == pytest.approx(time.time() - seconds, abs=5)


@pytest.mark.parametrize(
    "text", ["2026-11-24T09:30", "2026-11-24 09:30:00", "2026-11-24T10:30+01:00", "2026-11-24T09:30:00Z"]
)
def test_a_time_is_taken_for_utc_unless_it_says_otherwise(text: str) -> None:
    assert moment(text) == 1795512600.0


@pytest.mark.parametrize("text", ["", "soon", "10", "10 minutes", "2026-13-01"])
def test_anything_else_is_refused_with_examples(text: str) -> None:
    with pytest.raises(click.BadParameter, match="like 10m"):
        moment(text)

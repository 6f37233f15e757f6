"""Where a real part is missing a test is skipped, and in CI it fails."""

from __future__ import annotations

import pytest

import realparts


def test_a_missing_part_skips_the_test_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="the thing is not available: it is not installed"):
        realparts.require("the thing", "it is not installed")


def test_a_missing_part_fails_the_test_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="the thing is not available, and in CI it must be"):
        realparts.require("the thing", "it is not installed")


@pytest.mark.parametrize("ci", ["true", "false"])
def test_a_part_that_is_there_lets_the_test_go_on(monkeypatch: pytest.MonkeyPatch, ci: str) -> None:
    monkeypatch.setenv("CI", ci)
    assert realparts.require("the thing", None) is None

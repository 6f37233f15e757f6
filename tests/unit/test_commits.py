"""Transactions under way: what becomes of those that do not end."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import cast

import pytest

from pipelined.errors import UnavailableError
from pipelined.kafka.transactions import Aborted, Transactor
from pipelined.kafka.window import Release
from pipelined.workers.commits import Commits


class Slow:
    """Stands for a transactor whose transactions end when they are let go."""

    def __init__(self) -> None:
        self.overdue = False
        self.let_go = threading.Event()
        self.error: Exception | None = None

    def begin(self, outputs: object) -> int:
        del outputs
        return 3

    def finish(self, *_: object) -> None:
        assert self.let_go.wait(60)
        if self.error is not None:
            raise self.error


@pytest.fixture
def slow() -> Iterator[Slow]:
    made = Slow()
    yield made
    made.let_go.set()


@pytest.fixture
def commits(slow: Slow) -> Iterator[Commits[int]]:
    made: Commits[int] = Commits(cast(Transactor, slow))
    made.launch(Release([], [], {}), [], [], None)
    yield made
    made.close()


def test_a_look_at_one_that_has_not_ended_yet_tells_nothing(slow: Slow, commits: Commits[int]) -> None:
    assert commits.land(0) is None
    assert commits.busy
    slow.let_go.set()
    landed = commits.land()
    assert landed is not None
    assert landed.outputs == 3
    assert landed.aborted is None
    assert not commits.busy


def test_one_that_was_aborted_has_ended(slow: Slow, commits: Commits[int]) -> None:
    slow.error = Aborted("told")
    slow.let_go.set()
    landed = commits.land()
    assert landed is not None
    assert landed.aborted is slow.error


@pytest.mark.parametrize("timeout", [0, None])
def test_one_that_may_never_end_is_given_up(slow: Slow, commits: Commits[int], timeout: float | None) -> None:
    slow.overdue = True
    with pytest.raises(UnavailableError, match="does not end within its time; the worker starts anew"):
        commits.land(timeout)

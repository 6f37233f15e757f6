"""Judging a pipeline at once, or when it has come to rest."""

from __future__ import annotations

import time
from collections.abc import Callable

from pipelined.config.tree import Config
from pipelined.ledger.balance import Balance
from pipelined.ledger.follower import Follower, Progress

__all__ = ["judge", "settled"]

_QUIET_SECONDS = 20.0


def settled(config: Config) -> Progress:
    """How far the pipeline is at this moment; ``.settled`` tells whether it is through."""
    with Follower(config) as follower:
        return follower.catch_up()


def judge(
    config: Config,
    wait: float = 0.0,
    tell: Callable[[Progress], None] | None = None,
    *,
    sources: bool = True,
) -> Balance:
    """Balance the pipeline, at once or when it has settled, at the latest after ``wait`` seconds.

    Waiting also ends when nothing has changed for 20 s, unless attachments wait for their next attempt.
    ``tell`` is called with the progress while waiting; without ``sources`` these are not asked. Raises
    ``UnavailableError``.
    """
    with Follower(config, sources=sources) as follower:
        if wait > 0:
            found = _wait(follower, time.monotonic() + wait, tell)
            if found:
                return found
        return follower.balance()


def _wait(follower: Follower, deadline: float, tell: Callable[[Progress], None] | None) -> Balance | None:
    """The balance as soon as there is a good one, None when waiting longer is of no use."""
    progress = judged = None
    changed = time.monotonic()
    while time.monotonic() < deadline:
        latest = follower.poll(0.2)
        if latest != progress:
            progress, changed = latest, time.monotonic()
            if tell:
                tell(progress)
        if latest.settled and latest != judged:
            balance, judged = follower.balance(), latest
            if balance.balanced:
                return balance
        if not latest.retrying and time.monotonic() - changed > _QUIET_SECONDS:
            return None
    return None

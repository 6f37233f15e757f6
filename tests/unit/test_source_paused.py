"""An operator's pause of a source: the page in hand is committed, and none asked for until it is over."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from source_turns import Turn, reading
from waiting import until


def test_a_paused_source_is_asked_for_nothing_until_it_is_resumed(monkeypatch: pytest.MonkeyPatch) -> None:
    operator = SimpleNamespace(paused=False)
    turn = Turn(20)
    with reading(turn) as worker:
        monkeypatch.setattr(worker.runtime, "_is_paused", lambda: operator.paused)
        until(turn.all_there)
        operator.paused = True
        time.sleep(0.3)  # a question that was under way is answered
        turn.count = 40
        beat = worker.stats.heartbeat_ns
        until(lambda: worker.stats.heartbeat_ns > beat + 300_000_000, "it gives signs of life")
        assert turn.ledger.rows == list(range(20))
        operator.paused = False
        until(turn.all_there)

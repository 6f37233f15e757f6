"""Health, judged from shared memory: alive means that the loops turn, ready that all of them work."""

from __future__ import annotations

import time

from pipelined.config import Config
from pipelined.stats import registry as metrics
from pipelined.stats.slots import SharedStats, WorkerState
from pipelined.stats.status import SILENT_S

__all__ = ["alive", "ready"]


def alive(config: Config, stats: SharedStats) -> list[str]:
    """What stands still though it should move, a line each; empty where all is well.

    The supervisor stands still when its loop has not turned for ten seconds, five times as long as it ever
    waits. A worker is stuck when its loop gives no sign for its hang timeout, or when it has had records
    waiting and committed nothing for ten times as long although it is not paused.
    """
    failing = []
    if stats.turns.silent_s > SILENT_S:
        failing.append(f"supervisor: its loop has not turned for {stats.turns.silent_s:.0f} s")
    now = time.time()
    for slot in stats.slots:
        if slot.parent.state is not WorkerState.RUNNING:
            continue
        hang = config.worker(slot.worker).hang_s
        silent = slot.child.silent_s
        if silent > hang:
            failing.append(f"{slot.worker}[{slot.index}]: no sign of its work loop for {silent:.0f} s")
        progress = slot.child.gauge(metrics.LAST_PROGRESS)
        paused = slot.child.gauge(metrics.PAUSED) > 0 or slot.parent.paused
        waiting = slot.child.gauge(metrics.LAG) > 0 and not paused
        # Tasks that wait for their time are no standstill.
        if waiting and progress and now - progress > 10 * hang and slot.worker != "retry-scheduler":
            failing.append(
                f"{slot.worker}[{slot.index}]: nothing committed for {now - progress:.0f} s with lag"
            )
    return failing


def ready(config: Config, stats: SharedStats) -> list[str]:
    """What keeps the daemon from doing its whole job, a line each; empty where it does it."""
    failing = alive(config, stats)
    for slot in stats.slots:
        who = f"{slot.worker}[{slot.index}]"
        state = slot.parent.state
        if state is not WorkerState.RUNNING:
            failing.append(f"{who}: {state.name}")
        elif not slot.child.is_ready:
            failing.append(f"{who}: not ready yet")
        elif slot.child.gauge(metrics.DLQ_BREAKER):
            failing.append(f"{who}: the DLQ breaker is open")
        elif slot.parent.paused:
            failing.append(f"{who}: paused by an operator; `pipelinectl resume {slot.worker}` ends that")
        elif slot.child.gauge(metrics.PAUSED):
            failing.append(f"{who}: paused, something it relies on is down or refuses it")
    return failing

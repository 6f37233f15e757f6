"""The status of the daemon as one document, read from the shared memory alone.

The supervisor serves it on its control socket and the endpoint over HTTP: same words, same numbers.
"""

from __future__ import annotations

import logging
import platform
import signal
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pipelined import __version__
from pipelined.config.tree import SOURCE_TYPES
from pipelined.errors import ExitCode
from pipelined.logs.masking import mask
from pipelined.stats import registry, source_metrics
from pipelined.stats.slots import SharedStats, Slot, WorkerState

__all__ = ["ALIVE", "SILENT_S", "document", "exit_in_words"]

#: A worker that runs, and whose loop gave no sign for so long, is told of. It need not be a fault: a commit
#: to a slow store may take as long. When it counts as hung its ``hang_s`` says.
SILENT_S = 10.0
#: The states in which a worker has a process.
ALIVE = frozenset({WorkerState.STARTING, WorkerState.RUNNING, WorkerState.STOPPING})
_FAILED = frozenset({WorkerState.BACKOFF, WorkerState.EXITED, WorkerState.FATAL})

_EXITS = {
    ExitCode.OK: "done",
    ExitCode.FAILED: "failed",
    ExitCode.USAGE: "called wrongly",
    ExitCode.UNAVAILABLE: "something it needs cannot be reached",
    ExitCode.SOFTWARE: "an unexpected exception",
    ExitCode.CANTCREAT: "another daemon runs",
    ExitCode.TEMPFAIL: "its identity was taken over, or given up by the brokers",
    ExitCode.CONFIG: "configuration",
    ExitCode.DRAIN_TIMEOUT: "did not drain in time",
    ExitCode.INTERRUPTED: "interrupted",
}


def exit_in_words(code: int) -> str:
    """How a process ended; ``code`` is its exit code, or minus the signal that killed it."""
    if code < 0:
        try:
            return f"killed by {signal.Signals(-code).name}"
        except ValueError:
            return f"killed by signal {-code}"
    try:
        return f"exit {code}: {_EXITS[ExitCode(code)]}"
    except ValueError:
        return f"exit {code}"


def document(
    stats: SharedStats,
    *,
    pid: int,
    state: str | None = None,
    reasons: Mapping[tuple[str, int], str] | None = None,
) -> dict[str, Any]:
    """The status, ready for JSON. Times are ISO 8601 in UTC, durations are seconds.

    ``pid`` is the supervisor's. It alone knows ``state`` (starting, running, degraded, stopping) and the
    ``reasons`` for sure; without them they are derived from the pages.
    """
    workers = [_worker(slot, (reasons or {}).get((slot.worker, slot.index))) for slot in stats.slots]
    return {
        "versions": {"pipelined": __version__, "python": platform.python_version()},
        "pid": pid,
        "since": _time(stats.started),
        "state": state or _state(stats),
        "loop": stats.turns.told(),
        "workers": workers,
    }


def _state(stats: SharedStats) -> str:
    slots = stats.slots
    if any(slot.parent.state in _FAILED for slot in slots):
        return "degraded"
    if any(slot.parent.state is WorkerState.STOPPING for slot in slots):
        return "stopping"
    first = [slot for slot in slots if slot.child.generation <= 1]
    if any(slot.parent.state is WorkerState.STARTING for slot in first):
        return "starting"
    return "degraded" if any(slot.parent.state is WorkerState.STARTING for slot in slots) else "running"


def _worker(slot: Slot, reason: str | None) -> dict[str, Any]:
    child, parent = slot.child, slot.parent
    state = parent.state
    alive = state in ALIVE and child.pid == parent.pid
    ended = child.generation > (1 if alive else 0) or parent.last_exit != 0
    last_exit = exit_in_words(parent.last_exit) if ended else None
    age = child.silent_s if alive else None
    measured = parent.measured if alive else None
    failed_at, error = child.last_error
    return {
        "type": slot.worker,
        "index": slot.index,
        "state": state.name,
        "reason": (_reason(slot, last_exit) if reason is None else reason) or _silence(slot, age),
        "pid": parent.pid or None,
        "since": _time(parent.since),
        "restarts": parent.restarts,
        "last_exit": last_exit,
        "next_try": _time(parent.next_try),
        "ready": alive and child.is_ready,
        "heartbeat_age_s": None if age is None else round(age, 3),
        "published": (child.published or None) if alive else None,
        "records_in": child.counter(registry.RECORDS_IN),
        "records_out": child.counter(registry.RECORDS_OUT),
        "in_per_second": None if measured is None else round(measured[0], 2),
        "out_per_second": None if measured is None else round(measured[1], 2),
        "cpu_percent": None if measured is None else round(measured[2], 1),
        "in_flight": int(child.gauge(registry.IN_FLIGHT)) if alive else 0,
        "lag": int(child.gauge(registry.LAG)) if alive else None,
        "says": child.says if alive else "",
        "paused": alive and child.gauge(registry.PAUSED) > 0,
        "paused_by_operator": parent.paused,
        "log_level": logging.getLevelName(parent.log_level) if parent.log_level else None,
        "log_level_by_operator": parent.log_level_asked,
        "failures": _by_label(slot, registry.FAILURES),
        "dead_letters": _by_label(slot, registry.DEAD_LETTERS),
        "last_error": mask(" ".join(error.split())),
        "last_error_at": _time(failed_at),
        "source": _source(slot, alive) if slot.worker in SOURCE_TYPES else None,
    }


def _source(slot: Slot, alive: bool) -> dict[str, Any]:
    """How far a source is read. ``position`` and ``token_expires`` are null where they are not known."""
    gauge = slot.child.gauge
    position = gauge(source_metrics.POSITION) if alive else 0.0
    return {
        "state": slot.child.says.partition(":")[0] if alive else "",
        "position": _time(position),
        "delay_s": round(gauge(source_metrics.DELAY), 3) if position else None,
        "rows_per_second": round(gauge(source_metrics.RATE), 2) if alive else 0.0,
        "waiting": alive and gauge(source_metrics.WAITING) > 0,
        "held": alive and gauge(source_metrics.HELD) > 0,
        "refused": alive and gauge(source_metrics.REFUSED) > 0,
        "fallback": alive and gauge(source_metrics.FALLBACK) > 0,
        "token_expires": _time(gauge(source_metrics.TOKEN) if alive else 0.0),
    }


def _reason(slot: Slot, last_exit: str | None) -> str:
    match slot.parent.state:
        case WorkerState.BACKOFF | WorkerState.EXITED:
            return last_exit or "it could not be started"
        case WorkerState.FATAL:
            return f"given up: {last_exit or 'it could not be started'}"
        case _:
            return ""


def _silence(slot: Slot, age: float | None) -> str:
    if age is None or age <= SILENT_S or slot.parent.state is not WorkerState.RUNNING:
        return ""
    return f"no sign of its work loop for {age:.0f} s; after its hang_s it is ended and restarted"


def _by_label(slot: Slot, metric: registry.Metric) -> dict[str, int]:
    """Only the values that ever occurred: an empty object reads as "none"."""
    counts = {value: slot.child.counter(metric, value) for value in metric.values}
    return {value: count for value, count in counts.items() if count}


def _time(epoch: float) -> str | None:
    if not epoch:
        return None
    return datetime.fromtimestamp(epoch, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

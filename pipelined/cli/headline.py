"""The whole status in one sentence: how it is, what is wrong, and what to do next."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import click

from pipelined.cli.durations import short
from pipelined.stats.status import SILENT_S

__all__ = ["epoch", "headline", "name", "styled"]

#: An error so short before the end of a process is why it ended.
_AT_ITS_END_S = 2.0
_COLOURS = {
    "RUNNING": "green",
    "STARTING": "yellow",
    "STOPPING": "yellow",
    "DEGRADED": "red",
    "BACKOFF": "red",
    "EXITED": "red",
    "FATAL": "red",
}


def styled(text: str, state: str, *, colour: bool) -> str:
    """A text in the colour of a state, of a worker's or the daemon's."""
    wanted = _COLOURS.get(state.upper()) if colour else None
    return click.style(text, fg=wanted, bold=wanted == "red" or None) if wanted else text


def epoch(moment: str) -> float:
    """A time of the status document in seconds since the epoch."""
    return datetime.fromisoformat(moment).timestamp()


def name(worker: dict[str, Any]) -> str:
    """What a worker is called: its type and index."""
    return f"{worker['type']}/{worker['index']}"


def headline(document: dict[str, Any], now: float) -> str:
    """The sentence for a status document; ``now`` is in seconds since the epoch."""
    state, workers = document["state"], document["workers"]
    running = sum(worker["state"] == "RUNNING" for worker in workers)
    share = f"all {running} workers run" if running == len(workers) else f"{running} of {len(workers)} run"
    if running == len(workers) == 1:
        share = f"{name(workers[0])} runs"
    troubles = sorted(set(filter(None, (_trouble(worker, now) for worker in workers))))
    match state:
        case "stopping":
            left = [name(worker) for worker in workers if worker["pid"] is not None]
            rest = f"{_few(left)} still to drain" if left else "all is drained"
        case "starting":
            waits = [name(worker) for worker in workers if worker["state"] == "STARTING"]
            rest = f"{share}, waits for {_few(waits)}" if waits else share
        case _ if troubles:
            more = f"; and {len(troubles) - 1} more, see below" if len(troubles) > 1 else ""
            rest = f"{share}; {troubles[0][1]}{more}"
        case _:
            rest = f"{share}, nothing to do"
    head = f"pipelined {document['versions']['pipelined']} (pid {document['pid']}) is {state}"
    return f"{head}, up {short(now - epoch(document['since']))}: {rest}"


def _trouble(worker: dict[str, Any], now: float) -> tuple[int, str] | None:
    """What is wrong with a worker and what to do, the worst with the smallest number; None if nothing is."""
    who, kind, reason = name(worker), worker["type"], _reason(worker)
    match worker["state"]:
        case "FATAL":
            return 0, f"{who} was given up ({reason}): mend that, then `pipelinectl start {kind}`"
        case "BACKOFF" | "EXITED":
            soon = f", in {short(epoch(worker['next_try']) - now)}" if worker["next_try"] else ""
            return (
                1,
                f"{who} failed ({reason}) and is restarted by itself{soon}; see `pipelinectl logs {kind}`",
            )
        case "STOPPED":
            return 4, f"{who} was stopped; `pipelinectl start {kind}` starts it"
        case "STARTING" | "STOPPING":
            return 3, f"{who} is {worker['state']}{': ' if worker['reason'] else ''}{worker['reason']}"
    if (worker["heartbeat_age_s"] or 0.0) > SILENT_S:
        silence = short(worker["heartbeat_age_s"])
        return (
            2,
            f"{who} gives no sign of its work loop for {silence}; `kill -QUIT {worker['pid']}` writes what "
            f"it does to its log, and if that goes on it is ended and restarted",
        )
    if worker["paused_by_operator"]:
        return 5, f"{kind} is paused by an operator; `pipelinectl resume {kind}` ends that"
    if worker["paused"]:
        why = worker["says"] or worker.get("last_error") or f"see `pipelinectl logs {kind}`"
        return 2, f"{who} waits for something that it relies on ({why})"
    return None


def _reason(worker: dict[str, Any]) -> str:
    """Why it ended: with what it said last, if that was when it ended."""
    error = worker.get("last_error") or ""
    if error and epoch(worker["last_error_at"]) > epoch(worker["since"]) - _AT_ITS_END_S:
        return f"{worker['reason']}: {error}" if worker["reason"] else error
    return worker["reason"] or "it did not say why"


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")

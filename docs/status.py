"""The page of the reference about the status as JSON, held against a document as the daemon makes it."""

from __future__ import annotations

from typing import Any

from docs.markdown import code, page, table
from pipelined.config.tree import SOURCE_TYPES
from pipelined.stats.slots import SharedStats
from pipelined.stats.status import document

__all__ = ["LOOP", "SOURCE", "WHOLE", "WORKER", "sample", "status"]

_INTRO = """\
What `pipelinectl status --json` prints, and `/status` of the endpoint answers. Times are ISO 8601 in UTC,
durations are seconds unless the name says otherwise, `null` is what is not known or does not apply. Fields
may be added; none goes away or changes its meaning while the control socket speaks the same version. What
the exit code says: [failures](failures.md#exit-codes)."""

_ADDED = """\
`pipelinectl` adds one field to each worker, which the endpoint does not have: `pss_bytes`, its share of the
memory, `null` where whoever asks may not see it. With `--watch`, each look is one line."""

WHOLE = {
    "versions": "The versions of `pipelined` and `python` that run.",
    "pid": "The supervisor's process.",
    "since": "When the daemon was started.",
    "state": "`starting` until each type has been started once; `running`; `degraded` while a worker is in "
    "BACKOFF, EXITED or FATAL, or comes back from there; `stopping`.",
    "loop": "How the supervisor's own loop does, see below.",
    "workers": "Each worker process, by type in the order of the flow and by index.",
}

WORKER = {
    "type": "The worker type.",
    "index": "Which one of its type, from 0.",
    "state": "STOPPED, STARTING, RUNNING, STOPPING, BACKOFF, EXITED or FATAL.",
    "reason": "Why it is in this state, in words; of one that is RUNNING that it gave no sign for ten "
    "seconds; empty where there is nothing to say.",
    "pid": "Its process.",
    "since": "When it came into this state.",
    "restarts": "How often it was restarted after it failed.",
    "last_exit": "How its process before this one ended, in words.",
    "next_try": "When it is started again.",
    "ready": "Whether it has all that it needs, and works.",
    "heartbeat_age_s": "How long ago its work loop gave its last sign.",
    "published": "A number of its own: of the endpoint, its port.",
    "records_in": "Records taken since the daemon was started.",
    "records_out": "Records or rows written and committed since then.",
    "in_per_second": "Records taken per second, over the last ten seconds.",
    "out_per_second": "Records or rows written per second, over the last ten seconds.",
    "cpu_percent": "Its processor time over the last ten seconds; 100 is one processor.",
    "in_flight": "Records taken and not yet committed.",
    "lag": "Records of its partitions that it has not committed yet.",
    "says": "What it does or waits for, in its own words.",
    "paused": "Whether it waits for something that it relies on, or its DLQ breaker is open.",
    "paused_by_operator": "Whether `pipelinectl pause` holds it.",
    "log_level": "From which level on it logs.",
    "log_level_by_operator": "Whether an operator asked for that level, at run time.",
    "failures": "Failed attempts by [category](failures.md#categories), those that ever occurred.",
    "dead_letters": "Dead letters by category.",
    "last_error": "What last failed: its code and what happened, without secrets. It outlives the process.",
    "last_error_at": "When that was.",
    "source": "How far a source is read, see below; `null` for every other type.",
}

SOURCE = {
    "state": "How it is, in a word or two: the first of what it says.",
    "position": "Until when all that the source has is taken.",
    "delay_s": "How far that is behind now.",
    "rows_per_second": "How many rows come in.",
    "waiting": "Whether the source has something that does not come.",
    "held": "Whether the lag of the stages holds it back.",
    "refused": "Whether it waits for an operator to mend something.",
    "fallback": "Whether it reads by ingestion time because there are no cursors.",
    "token_expires": "Until when it is logged in.",
}

LOOP = {
    "turns": "Turns since the daemon was started.",
    "slow_turns": "Those that took longer than 10 ms.",
    "silent_s": "How long ago the last one ended. The loop turns at least every two seconds, or it hangs.",
    "longest_ms": "The longest one, in milliseconds.",
    "longest_cpu_ms": "The most processor time of one, in milliseconds.",
    "forks": "Processes forked.",
    "longest_fork_ms": "The longest fork, in milliseconds.",
}


def status() -> str:
    """Every field, in the order in which it is told."""
    told = sample()
    worker = told["workers"][0]
    return page(
        "Status",
        "`pipelined/stats/status.py` and the meanings in `docs/status.py`",
        _INTRO,
        _fields(told, WHOLE),
        "## Each worker",
        _fields(worker, WORKER),
        _ADDED,
        "## `source`",
        _fields(worker["source"], SOURCE),
        *(["## `loop`", _fields(told["loop"], LOOP)] if "loop" in told else []),
    )


def sample() -> dict[str, Any]:
    """A document of one source, with every field that there is."""
    return document(SharedStats({SOURCE_TYPES[0]: 1}), pid=1)


def _fields(told: dict[str, Any], meanings: dict[str, str]) -> str:
    return table(["field", "meaning"], ([code(field), meanings[field]] for field in told))

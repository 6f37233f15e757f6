"""What differs between two configurations, and which worker types have to begin anew because of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from pipelined.config.leaves import leaves
from pipelined.config.tree import WORKER_TYPES, Config
from pipelined.config.values import written

__all__ = [
    "AT_ONCE",
    "DAEMON",
    "NEEDS",
    "Change",
    "Reload",
    "changes",
    "claimed",
    "fixed",
    "matches",
    "reload_of",
    "touches",
]

#: Not the level, which a worker follows while it runs.
_LOGS = ("logs.format", "logs.repeats")
#: The patience of a group is that of the supervisor with any of its workers.
_KAFKA = ("kafka", "topics", "retry", *_LOGS, "workers.*.hang_s", "workers.*.start_s")

#: What each worker type looks at beside its own section ``workers.<type>``: sections, or single keys.
NEEDS: dict[str, tuple[str, ...]] = {
    "eventhouse-poller": (*_KAFKA, "sources", "eventhouse"),
    "eventhub-reader": (*_KAFKA, "sources", "eventhub"),
    "event-ingester": (*_KAFKA, "breaker", "ingest", "urls"),
    "event-writer": (*_KAFKA, "breaker", "tables"),
    "retry-scheduler": (*_KAFKA, "breaker"),
    "download": (*_KAFKA, "breaker", "cache_dir", "cache_hours", "download", "files", "urls"),
    "upload": (*_KAFKA, "breaker", "cache_dir", "upload"),
    "result-processor": (*_KAFKA, "breaker", "tables"),
    "table-maintenance": (*_LOGS, "tables"),
    "endpoint": (*_LOGS, "endpoint", "workers.*.hang_s", "cache_dir", "upload.url", "tables.url"),
}
#: What no worker can take over while the others still have the old value: the names by which they know
#: each other, and what the parent has made for its whole life.
DAEMON: tuple[str, ...] = (
    "domain",
    "state_dir",
    "runtime_dir",
    "kafka.host",
    "topics.*.name",
    "supervisor.max_processes",
)
#: What the parent alone looks at, and takes over without restarting anybody.
AT_ONCE: tuple[str, ...] = (
    "logs.level",
    "logs.file_mb",
    "logs.files_kept",
    "supervisor",
    "workers.*.processes",
    "workers.*.memory_mb",
)


@dataclass(frozen=True, slots=True)
class Change:
    """One key with another value; both as TOML writes them. A secret is its reference."""

    path: str
    old: str
    new: str

    def __str__(self) -> str:
        return f"{self.path}: {self.old} → {self.new}"


def changes(old: Config, new: Config) -> list[Change]:
    """Every key whose value differs, in the order of its declaration."""
    return [
        Change(before.path, written(before.default), written(after.default))
        for before, after in zip(leaves(old), leaves(new), strict=True)
        if before.default != after.default
    ]


def fixed(differing: Iterable[Change]) -> list[Change]:
    """Those that only a restart of the whole daemon can bring about."""
    return [change for change in differing if matches(change.path, DAEMON)]


def touches(differing: Iterable[Change], worker_type: str) -> bool:
    """Whether a worker of that type has to begin anew."""
    return any(worker_type in claimed(change.path) for change in differing)


@dataclass(frozen=True, slots=True)
class Reload:
    """What a reload of a daemon of all types would do: worker types that restart, numbers of processes that
    change (before, after), and keys because of which it is refused.
    """

    restarts: list[str]
    processes: dict[str, tuple[int, int]]
    refused: list[str]


def reload_of(old: Config, new: Config) -> Reload:
    """What a daemon that runs on ``old`` would do to run on ``new``."""
    differing = changes(old, new)
    counts = {name: (old.worker(name).processes, new.worker(name).processes) for name in WORKER_TYPES}
    return Reload(
        [name for name, both in counts.items() if min(both) > 0 and touches(differing, name)],
        {name: both for name, both in counts.items() if both[0] != both[1]},
        [change.path for change in fixed(differing)],
    )


def claimed(path: str) -> set[str]:
    """The worker types that look at a key."""
    return {worker_type for worker_type, sections in NEEDS.items() if matches(path, sections)} | {
        worker_type
        for worker_type in NEEDS
        if path.startswith(f"workers.{worker_type.replace('-', '_')}.") and not matches(path, AT_ONCE)
    }


def matches(path: str, patterns: Iterable[str]) -> bool:
    """Whether a key is one of ``patterns``, or lies in one: names with * for any of a kind."""
    return any(path.startswith(pattern + ".") or fnmatchcase(path, pattern) for pattern in patterns)

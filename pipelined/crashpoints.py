"""Crash points: places between two steps at which a test can kill a worker, exactly there and exactly once.

For tests only, and harmless: what they do is what ``kill -9`` does, which may happen at any moment anyway.
Without the environment variable ``PIPELINED_CRASH_POINTS`` a call looks at one global and does nothing.
With it, it names a folder. A file ``WORKER:POINT`` in that folder arms a point of a worker type: the first
of its processes that comes by, and can remove the file, kills itself with SIGKILL, all its threads at once.
So one file is one crash, although the restarted worker has the same environment. A number in the file
means the so-many-th time that one process comes by; without one it is the first.

The points are declared here and nowhere else; each has a test for every worker type that it belongs to
(tests/chaos/test_crash_points.py), and a line in docs/reference/crash-points.md.
"""

from __future__ import annotations

import enum
import logging
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from pipelined.errors import ConfigError

__all__ = ["VARIABLE", "Point", "armed", "crashpoint", "enter"]

_logger = logging.getLogger("pipelined.crashpoints")

VARIABLE = "PIPELINED_CRASH_POINTS"

_LOAD = ("load",)
_BACKFILL = ("backfill",)
_SOURCES = ("eventhouse-poller", "eventhub-reader")
_TABLES = ("event-writer", "result-processor")
_STAGES = ("event-ingester", "retry-scheduler", "download", "upload")
_MEMBERS = _STAGES + _TABLES
_FILES = ("download", "upload")
_AGAIN = "Nothing of the batch can be seen; it is read, and its work done, again."
_ABORTED = (
    "The successor takes over the transactional id, and with that the broker aborts; nobody has read "
    "anything of it. The batch is done again."
)
_PLACED_AGAIN = "The file is fetched or stored again, and takes the place of what lies there."


class Point(enum.Enum):
    """A crash point: its name, its worker types, how things stand there, and what becomes of them."""

    label: str
    workers: tuple[str, ...]
    stands: str
    follows: str

    def __init__(self, label: str, workers: tuple[str, ...], stands: str, follows: str) -> None:
        self.label, self.workers, self.stands, self.follows = label, workers, stands, follows

    OFFSETS_READ = (
        *("assignment.offsets_read", _MEMBERS),
        "Partitions are assigned and their offsets read; nothing is prepared for them.",
        "The successor, a static member, has the same partitions and asks again.",
    )
    ASSIGNED = (
        *("assignment.prepared", _MEMBERS),
        "The worker is prepared for its partitions, the ingester's memory read back; no record is read.",
        "The successor prepares anew: all of it is read from topics and tables, nothing is kept beside them.",
    )
    POSITIONED = (
        *("source.positioned", _SOURCES),
        "The transactional id is taken over and the position read back; nothing is asked of the source.",
        "The successor reads the position back again.",
    )
    PAGED = (
        *("source.fetched", _SOURCES + _BACKFILL),
        "A page is fetched; nothing of it is produced, and the next one may be under way.",
        "It is fetched again, from the position that was committed last.",
    )
    BEGUN = (
        *("transaction.begun", _SOURCES + _MEMBERS + _LOAD + _BACKFILL),
        "A transaction is open at the client; nothing is produced, no offset is sent.",
        _AGAIN,
    )
    PRODUCED = (
        *("transaction.produced", _SOURCES + _MEMBERS + _LOAD + _BACKFILL),
        "The outputs are at the brokers, in an open transaction; no offset is sent.",
        _ABORTED,
    )
    OFFSETS_SENT = (
        *("transaction.offsets_sent", _MEMBERS),
        "Outputs and offsets are at the brokers, in an open transaction; the commit is not asked for.",
        _ABORTED,
    )
    COMMITTED = (
        *("transaction.committed", _SOURCES + _MEMBERS + _LOAD + _BACKFILL),
        "The transaction is committed; the worker has drawn no consequence from it.",
        "The successor begins behind it. Its counters, and an upload's cached file, are left as they were.",
    )
    FETCHED = (
        *("download.fetched", ("download",)),
        "A body is complete, in memory or under a temporary name, and judged; nothing is synced.",
        "It is fetched again; the temporary folder of the dead process is swept.",
    )
    FILE_WRITTEN = (
        *("file.written", _FILES),
        "A file lies complete under its temporary name; nothing is synced.",
        "It is fetched or stored again; the temporary name is swept, or used again.",
    )
    FILE_SYNCED = (
        *("file.synced", _FILES),
        "A file's content is durable under its temporary name; the final name does not exist.",
        "It is fetched or stored again; the temporary name is swept, or used again.",
    )
    FILE_RENAMED = (
        *("file.renamed", _FILES),
        "A file has its final name; its folder is not synced.",
        _PLACED_AGAIN,
    )
    FILE_PLACED = (
        *("file.placed", _FILES),
        "A file is durable under its final name; no outcome speaks of it.",
        _PLACED_AGAIN,
    )
    STORED = (
        *("upload.stored", ("upload",)),
        "A file is in the store; its result is not produced.",
        "It is stored again, which leaves the same file, and its result is produced once.",
    )
    CACHED_KEPT = (
        *("upload.committed", ("upload",)),
        "Results are committed; the cached files of them are still there.",
        "The sweep of the cache folder takes them after `cache_hours`.",
    )
    LETTERS_WRITTEN = (
        *("tables.letters_written", _TABLES),
        "Dead letters are committed, and noted in the group's offset metadata; no table has the batch.",
        "The batch is read again; the note tells which dead letters are written, and none is twice.",
    )
    DATA_WRITTEN = (
        *("table.data_written", _TABLES),
        "A data file lies in the table's folder; no commit names it.",
        "No reader sees it. The batch is written again, into another file; the orphan is left to a vacuum.",
    )
    LOGGED = (
        *("table.logged", _TABLES),
        "A commit is in the table's log; nothing of it is synced, and the next table does not have it.",
        "The successor finds the position in the table and begins behind it; it syncs those commits first.",
    )
    TABLE_STORED = (
        *("tables.one_stored", _TABLES),
        "The commit of a table is durable; the worker's next table, if it has one, lacks the batch.",
        "The batch is read again from the lowest position of the tables; those that have it drop it.",
    )
    TABLES_STORED = (
        *("tables.stored", _TABLES),
        "All tables have the batch; the group's offsets at the broker do not show it.",
        "The tables' positions count, not the broker's; it is told with the next batch.",
    )
    DRAINING = (
        *("drain.begun", _SOURCES + _MEMBERS),
        "The worker was told to stop; what it has in hand is neither finished nor committed.",
        "As without the stop: what was in hand is read again.",
    )
    DRAINED = (
        *("drain.done", _SOURCES + _MEMBERS),
        "What was in hand is finished and committed; the worker has not closed its membership.",
        "The successor goes on behind it; until it comes its partitions rest, as after any stop.",
    )
    REVOKED = (
        *("rebalance.finished", _STAGES),
        "Partitions are called back, and what was in hand of them is committed; they are not given back.",
        "The successor joins without them; whoever gets them begins behind what was committed.",
    )
    LOADED = (
        *("load.batch_done", _LOAD),
        "A batch of lines and the position behind it are committed; the next is not begun.",
        "The same command goes on behind the batch.",
    )


_WORDS = {f"{worker}:{point.label}" for point in Point for worker in point.workers}
_worker = ""  # what this process is; "": nothing can be armed, and every call returns at once
_passed: Counter[str] = Counter()
_lock = threading.Lock()


def crashpoint(point: Point, first: Callable[[], object] | None = None) -> None:
    """Die here if it is armed; ``first`` is called just before, where the point needs it to be exact."""
    if _worker:
        _pass(point, first)


def armed() -> list[str]:
    """What is armed now. ConfigError: the folder cannot be read, or a file in it names no point."""
    folder = os.environ.get(VARIABLE, "")
    if not folder:
        return []
    try:
        names = sorted(path.name for path in Path(folder).iterdir())
    except OSError as error:
        msg = f"{VARIABLE}: the folder {folder} cannot be read ({error.strerror}); it is for tests, unset it"
        raise ConfigError(msg) from error
    if unknown := [name for name in names if name not in _WORDS]:
        advice = "no WORKER:POINT; docs/reference/crash-points.md has them all. For tests only: unset it"
        raise ConfigError([f"{VARIABLE}: {folder}/{name} is {advice}" for name in unknown])
    return names


def enter(worker: str) -> None:
    """From now on this process is ``worker``, and may be armed. Raises what :func:`armed` raises."""
    global _worker
    if os.environ.get(VARIABLE):
        _logger.warning(
            "crash points are on, for tests only: %s; armed now: %s",
            os.environ[VARIABLE],
            ", ".join(armed()) or "none",
        )
        _worker = worker


def _pass(point: Point, first: Callable[[], object] | None) -> None:
    name = f"{_worker}:{point.label}"
    if name not in armed():
        return
    file = Path(os.environ[VARIABLE]) / name
    with _lock:  # other threads of this process may be here too
        try:
            _passed[name] += 1
            if _passed[name] < int(file.read_text() or 1):
                return
            file.unlink()
        except FileNotFoundError:
            return  # another process of this type was faster
    if first is not None:
        first()
    os.kill(os.getpid(), signal.SIGKILL)

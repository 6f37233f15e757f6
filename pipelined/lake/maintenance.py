"""What keeps a table fast and its folder small: compaction, vacuum, checkpoints. Sinks go on meanwhile.

None of it changes a row. Compaction never gets in the way of an append; where it and a MERGE of a sink touch
the same files, the later one is refused by the table and tries again, the sink too. A process killed in the
middle leaves files that nothing names, which the next vacuum removes.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
import math
import random
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction
from deltalake.exceptions import CommitFailedError

from pipelined.config.work import Tables
from pipelined.lake.alone import alone
from pipelined.lake.durable import LocalDisk, local_path
from pipelined.lake.faults import classified, plain
from pipelined.lake.files import StoredFile
from pipelined.lake.log import tidy
from pipelined.lake.table import WRITER, TableSource

__all__ = ["LEAST_VACUUM_HOURS", "Done", "Maintenance", "SmallFiles"]

_log = logging.getLogger("pipelined.lake")

#: A file younger than this may belong to a commit that is under way.
LEAST_VACUUM_HOURS = 24
#: The size of a compacted file: what the table layer aims at, and less for a day that still grows, so that
#: its rows are not written again and again.
_TARGET_BYTES = 100 * 1024 * 1024
_GROWING_BYTES = 8 * 1024 * 1024
_DAY = "event_date"
_TRIES = 5
#: When a complete round began and ended last, in epoch seconds; a claim holds for so long.
_CLAIMED = "pipelined/maintenance-claimed"
_FINISHED = "pipelined/maintenance-finished"
_CLAIM_S = 3600


class SmallFiles(NamedTuple):
    """The files of one day that could be fewer; ``day`` is an ISO date."""

    day: str
    files: int
    bytes: int


class Done(NamedTuple):
    """What maintenance came to: files compacted, and what was removed from the folder."""

    compacted: int = 0
    removed: int = 0
    bytes: int = 0

    def __add__(self, other: object) -> Done:
        assert isinstance(other, Done)
        return Done(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))


class Maintenance:
    """Looks after one table. Opens it anew for each operation; use it from one thread.

    Operations raise AuthError, DependencyError or ConfigError as the sink does. What they did is durable
    when they return.
    """

    def __init__(self, source: TableSource, settings: Tables) -> None:
        self.url = source.url
        self._source = source
        self._settings = settings
        self._folder = local_path(source.url)  # None where it is not on a local disk
        self._disk = None if self._folder is None else LocalDisk(self._folder)

    def exists(self) -> bool:
        """Whether there is a table at all: its sink makes it when it first starts."""
        with classified(self.url):
            return self._source.exists()

    def version(self) -> int:
        """The newest version."""
        with classified(self.url):
            return self._source.existing().version()

    def small_files(self, *, least: int = 2, open_days: bool = False) -> list[SmallFiles]:
        """The days with at least ``least`` files that compaction would join; only days that are over."""
        with classified(self.url):
            return [*_small_files(self._source.existing(), least, open_days, _TARGET_BYTES)]

    def compact(self, days: Sequence[str]) -> Done:
        """Join the small files of these days, one commit for each; a day may be left to the next time.

        That is where another writer's changes came first, again and again. On a local disk it leaves a table
        to another process that compacts it already; elsewhere the caller must know that there is none.
        """
        return self._join(days, _TARGET_BYTES)

    def removable(self, hours: float) -> list[StoredFile]:
        """What :meth:`vacuum` would remove: files no version needs, and what killed writers left behind."""
        with classified(self.url):
            return [*self._unneeded(self._source.existing(), hours), *self._staging(hours)]

    def vacuum(self, hours: float) -> Done:
        """Remove what no version of the last ``hours`` needs, and what killed writers left behind.

        Files younger than a commit takes belong to it: with less than LEAST_VACUUM_HOURS make sure that
        nobody writes to the table.
        """
        with classified(self.url):
            table = self._opened()
            files = self._unneeded(table, hours)
            if files:
                _vacuum(table, hours, dry_run=False)
            self._sync(table)
            stored = self._source.files()
            files += [file for file in self._staging(hours) if stored.remove(file)]
            return Done(removed=len(files), bytes=sum(file.size for file in files))

    def checkpoint(self) -> Done:
        """Write a checkpoint, so that opening reads that alone, and remove the log that is too old."""
        with classified(self.url):
            table = self._opened()
            table.create_checkpoint()
            if self._disk is not None:
                self._disk.sync_checkpoint(table.version())
            table.cleanup_metadata()
            return self._tidy(table)

    def tend(self) -> Done:
        """What cannot wait for a round: days, today's too, with too many small files; a log too long."""
        with classified(self.url):
            least = self._settings.small_files
            many = [*_small_files(self._source.existing(), least, True, _GROWING_BYTES)]
        # Elsewhere than on a local disk nothing keeps two hosts from compacting the same files at once.
        days = [small.day for small in many] if self._disk is not None else []
        done = self._join(days, _GROWING_BYTES)
        with classified(self.url):
            return done + self._tidy(self._opened())

    def finished(self) -> float:
        """When a complete round ended last, by whichever host, in epoch seconds; 0: never."""
        with classified(self.url):
            return self._source.existing().transaction_version(_FINISHED) or 0

    def round(self, hours: float) -> Done | None:
        """A complete round, if the last one ended ``hours`` ago and no other host is at it; else None.

        It is claimed in the table itself: of two hosts that claim it at once the table refuses one. A
        claim whose host died is void after an hour.
        """
        now = int(time.time())
        with classified(self.url):
            table = self._opened()
            finished = table.transaction_version(_FINISHED) or 0
            claimed = table.transaction_version(_CLAIMED) or 0
            if now < finished + hours * 3600 or (finished < claimed and now < claimed + _CLAIM_S):
                return None
            try:
                self._note(table, _CLAIMED, now)
            except CommitFailedError:
                return None
        done = self.compact([small.day for small in self.small_files()] if self._disk is not None else [])
        done += self.vacuum(self._settings.vacuum_hours)
        done += self.checkpoint()
        with classified(self.url):
            self._note(self._opened(), _FINISHED, int(time.time()))
        return done

    def _opened(self) -> DeltaTable:
        """The table, with what it has now made durable: what follows is all that is synced later."""
        table = self._source.existing()
        self._sync(table)
        return table

    def _sync(self, table: DeltaTable) -> None:
        if self._disk is not None:
            self._disk.sync(table.version())

    def _join(self, days: Sequence[str], target: int) -> Done:
        if not days:
            return Done()
        with classified(self.url), self._alone() as alone:
            if not alone:
                _log.info("%s is being compacted by another process; left to it", self.url)
                return Done()
            return Done(compacted=sum(self._compact(day, target) for day in days))

    def _alone(self) -> contextlib.AbstractContextManager[bool]:
        return contextlib.nullcontext(True) if self._folder is None else alone(self._folder)

    def _compact(self, day: str, target: int) -> int:
        for tries in range(_TRIES):
            table = self._opened()
            try:
                metrics = table.optimize.compact(
                    partition_filters=[(_DAY, "=", day)],
                    target_size=target,
                    max_concurrent_tasks=1,
                    writer_properties=WRITER,
                )
            except CommitFailedError as error:
                _log.info("compaction of %s, %s came second: %s", self.url, day, plain(error))
                time.sleep(random.uniform(0.5, 1) * 0.1 * 2**tries)
                continue
            self._sync(table)
            return int(metrics["numFilesRemoved"])
        return 0

    def _unneeded(self, table: DeltaTable, hours: float) -> list[StoredFile]:
        names = {*_vacuum(table, hours, dry_run=True)}
        return [file for file in self._source.files().data() if file.path in names] if names else []

    def _staging(self, hours: float) -> list[StoredFile]:
        oldest = time.time() - hours * 3600
        return [file for file in self._source.files().staging() if file.modified <= oldest]

    def _tidy(self, table: DeltaTable) -> Done:
        if self._disk is None or not self._settings.log_commits:
            return Done()
        files = tidy(self._source.files(), table, self._disk, self._settings.log_commits)
        return Done(removed=len(files), bytes=sum(file.size for file in files))

    def _note(self, table: DeltaTable, name: str, number: int) -> None:
        """Commit one app transaction and nothing else."""
        table.create_write_transaction(
            [],
            mode="append",
            schema=table.schema(),
            partition_by=[_DAY],
            commit_properties=CommitProperties(app_transactions=[Transaction(name, number)]),
        )
        self._sync(table)


def _small_files(table: DeltaTable, least: int, open_days: bool, target: int) -> Iterator[SmallFiles]:
    """Two files of half the target at most can always be joined."""
    actions = pa.table(table.get_add_actions(flatten=True))
    small: dict[str, list[int]] = {}
    today = dt.datetime.now(dt.UTC).date()
    for day, size in zip(
        actions.column(f"partition.{_DAY}").to_pylist(), actions.column("size_bytes").to_pylist(), strict=True
    ):
        if size <= target // 2 and (open_days or day is None or day < today):
            small.setdefault("" if day is None else day.isoformat(), []).append(size)
    for name, sizes in sorted(small.items()):
        if len(sizes) >= least:
            yield SmallFiles(name, len(sizes), sum(sizes))


def _vacuum(table: DeltaTable, hours: float, *, dry_run: bool) -> list[str]:
    """Full: what was never committed, too; the table layer's own bound of a week is for who knows less."""
    return table.vacuum(math.ceil(hours), dry_run=dry_run, enforce_retention_duration=False, full=True)

"""Where each partition stands in a table, also in one that was put back to an older version.

A position is the app transaction ``{app}/{topic}/{partition}``. A RESTORE takes rows away but leaves the app
transactions as they are: the position would call rows stored that are gone. So a RESTORE begins a new count.
After the one that is version 41 the transaction's name ends with ``@41``; where there is none of that name
yet, the position is the one of the version that was restored to.

RESTOREs are found in the log. How far it has been looked through, and the last one found, are app
transactions too, so that a new process need not begin at version 0, nor depend on what the log still has.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Mapping
from typing import Any, NamedTuple

from deltalake import DeltaTable, Transaction
from deltalake.exceptions import DeltaError

from pipelined.errors import ConfigError, TableRestoredError
from pipelined.lake.faults import plain
from pipelined.lake.table import TableSource

__all__ = ["LOOKED", "Partition", "Positions"]

_log = logging.getLogger("pipelined.lake")

#: A topic and the number of one of its partitions.
Partition = tuple[str, int]

#: The app transaction that says up to which version the log has been looked through.
LOOKED = "pipelined/looked"
_RESTORED = "pipelined/restored"
_TARGET = "pipelined/restored-to"
#: How far the log may be looked through beyond what is written down.
_UNWRITTEN = 20
#: Versions looked through in a table that nothing was written down in.
_FIRST_LOOK = 1000


class _Restore(NamedTuple):
    """The last RESTORE of a table: its own version (0: there was none), and the one restored to."""

    version: int
    target: int


_NEVER = _Restore(0, 0)


class Positions:
    """The next offset to consume of each partition, as a handle of the table has it."""

    def __init__(self, app: str, source: TableSource) -> None:
        self._app = app
        self._source = source
        self._url = source.url
        self._stored: dict[Partition, int] = {}  # as the handle has them
        self._furthest: dict[Partition, int] = {}  # what we stored, or were told last
        self._inherited: dict[Partition, int] = {}  # of the version restored to; not yet of our own
        self._looked = -1
        self._doubtful = False  # after a failure
        self._written = 0
        self._restore = _NEVER
        self._before: tuple[Positions, DeltaTable] | None = None

    @property
    def restored(self) -> int:
        """The version that is the last RESTORE, 0 where there was none."""
        return self._restore.version

    def look(self, table: DeltaTable) -> bool:
        """Take in what others committed up to the handle's version; whether there is anything to look at."""
        version = table.version()
        if version == self._looked and not self._doubtful:
            return False
        self._stored.clear()
        self._doubtful = False
        if self._looked < 0 or version < self._looked:  # the first look, or the folder was put back
            self._written = table.transaction_version(LOOKED) or 0
            self._looked = self._written or max(0, version - _FIRST_LOOK)
            found = _Restore(*(table.transaction_version(name) or 0 for name in (_RESTORED, _TARGET)))
        else:
            found = self._restore
        if version > self._looked:
            found = self._newest(version) or found
        if found != self._restore:
            self._restore = found
            self._inherited.clear()
            self._before = None
        self._looked = version
        return True

    def of(self, table: DeltaTable, partition: Partition) -> int:
        """The next offset to consume; ``table`` is the handle last looked through.

        Raises TableRestoredError where it is less than it was, ConfigError where a RESTORE left nothing
        to tell it by.
        """
        position = self._stored.get(partition)
        if position is None:
            position = self._read(table, partition)
            if position < self._furthest.get(partition, 0):
                raise TableRestoredError(
                    f"table {self._url} was put back to an older version: {_name(partition)} stands at "
                    f"offset {position} there, and had come to {self._furthest[partition]}. The worker "
                    "starts again and reads on from there, so that nothing is missing"
                )
            self._stored[partition] = position
        return position

    def ask(self, table: DeltaTable, partition: Partition) -> int:
        """As :meth:`of`, for who begins to read there: whatever it is, it is right."""
        self._furthest.pop(partition, None)
        self._furthest[partition] = position = self.of(table, partition)
        return position

    def transactions(self, moved: Mapping[Partition, int]) -> list[Transaction]:
        """What a commit that moves these partitions carries."""
        found = [
            Transaction(self._id(partition), offset)
            for partition, offset in (self._inherited | dict(moved)).items()
        ]
        if self._inherited or self._looked - self._written >= _UNWRITTEN:
            found.append(Transaction(LOOKED, self._looked))
            if self._restore != _NEVER:
                found.append(Transaction(_RESTORED, self._restore.version))
                found.append(Transaction(_TARGET, self._restore.target))
        return found

    def committed(self, moved: Mapping[Partition, int], before: int, version: int) -> None:
        """The commit with these moved partitions is there, written through a handle of version ``before``."""
        if self._inherited or before - self._written >= _UNWRITTEN:
            self._written = before
        self._inherited.clear()
        for partition, offset in moved.items():
            self._furthest[partition] = max(offset, self._furthest.get(partition, 0))
        if version == before + 1 and self._looked == before:
            self._looked = version
            self._stored.update(moved)
        else:
            self._stored.clear()  # others committed as well; what they did must be looked at

    def forget(self) -> None:
        """After a failure: what the table has is to be read again."""
        self._stored.clear()
        self._doubtful = True

    def _read(self, table: DeltaTable, partition: Partition) -> int:
        position = table.transaction_version(self._id(partition))
        if position is not None or self._restore == _NEVER:
            return position or 0
        earlier, there = self._earlier()
        position = self._inherited[partition] = earlier.of(there, partition)
        return position

    def _earlier(self) -> tuple[Positions, DeltaTable]:
        """The positions of the version that was restored to."""
        if self._before is None:
            target = self._restore.target
            try:
                table = self._source.at(target)
            except DeltaError as error:
                raise ConfigError(
                    f"table {self._url} was restored to version {target}, which its log no longer has "
                    f"({plain(error)}): nobody can tell which records it holds. Restore it to a version that "
                    "`pipelinectl tables history` still shows, or move it away and it is filled anew"
                ) from error
            before = Positions(self._app, self._source)
            before.look(table)
            self._before = before, table
        return self._before

    def _newest(self, version: int) -> _Restore | None:
        """The last RESTORE among the versions not looked through yet, up to ``version``."""
        files = self._source.files()
        gone = 0
        for number in range(version, self._looked, -1):
            actions = files.commit(number)
            if actions is None:
                gone = number
                break
            for action in actions:
                info = action.get("commitInfo", {})
                if info.get("operation") == "RESTORE":
                    restore = _Restore(number, self._target(info.get("operationParameters") or {}, number))
                    _log.warning(
                        "%s was restored to version %d, in version %d; its positions are those of then",
                        self._url,
                        restore.target,
                        restore.version,
                        extra={"table": self._url},
                    )
                    return restore
        if gone and self._written:
            _log.warning(
                "the log of %s no longer has the versions %d to %d; if it was restored to an older version "
                "in one of them, rows may be missing: `pipelinectl ledger` tells",
                self._url,
                self._looked + 1,
                gone,
                extra={"table": self._url},
            )
        return None

    def _target(self, parameters: Mapping[str, Any], version: int) -> int:
        """The version that was restored to, which the log names by its number or its time."""
        number, time = (parameters.get(name) for name in ("version", "datetime"))
        if number is not None:
            return int(number)
        if time is None:
            raise ConfigError(
                f"table {self._url} was restored in version {version}, and its log does not say to which; "
                "restore it once more, to a version given by its number"
            )
        table = self._source.at(version - 1)
        table.load_as_version(dt.datetime.fromtimestamp(int(time) / 1000, dt.UTC))
        return table.version()

    def _id(self, partition: Partition) -> str:
        name = f"{self._app}/{_name(partition)}"
        return f"{name}@{self.restored}" if self.restored else name


def _name(partition: Partition) -> str:
    return f"{partition[0]}/{partition[1]}"

"""One Delta table opened: created where it does not exist, checked, and how its storage is reached."""

from __future__ import annotations

import functools
import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar
from urllib.parse import urlsplit

import pyarrow as pa
from deltalake import DeltaTable, Field, Schema, WriterProperties
from deltalake.exceptions import DeltaError, TableNotFoundError

from pipelined.auth import STORAGE_SCOPE, TokenProvider, provider
from pipelined.config.auth import Auth
from pipelined.config.work import Tables
from pipelined.errors import ConfigError
from pipelined.lake.durable import local_path
from pipelined.lake.faults import is_unauthenticated
from pipelined.lake.files import TableFiles

__all__ = ["WRITER", "TableSource", "storage_options"]

_log = logging.getLogger("pipelined.lake")

#: How every data file is written, by sinks and by compaction.
WRITER = WriterProperties(compression="ZSTD", compression_level=1)

T = TypeVar("T")

#: A handle is given up so long before its token ends, or by a share of what the token lives yet.
_AHEAD_S, _AHEAD_SHARE = 600.0, 1 / 4
_SOONEST_S = 1.0


@functools.cache
def _tokens(auth: Auth, host: str) -> TokenProvider:
    """One for all tables of this process; nothing begins before its first token."""
    return provider(auth, STORAGE_SCOPE, section="tables.auth", host=host)


def storage_options(url: str, tokens: TokenProvider) -> dict[str, str]:
    """Options to reach ``url``, with the token of this moment; raises what it raises."""
    if local_path(url) is not None:
        return {}
    # A dead endpoint would otherwise block for minutes (10 tries within 180 s).
    options = {"timeout": "30s", "connect_timeout": "10s", "retry_timeout": "60s"}
    if token := tokens.token():
        options["bearer_token"] = token
    return options


class TableSource:
    """Opens one table afresh: each :meth:`open` has the newest version and the newest token.

    Use only after the fork of the worker that owns it: the table layer refuses to work in a child of a
    process that has used it.
    """

    def __init__(
        self,
        url: str,
        schema: pa.Schema,
        *,
        partition_by: Sequence[str],
        statistics: Sequence[str],
        settings: Tables,
    ) -> None:
        self.url = url
        path = local_path(url)
        self.location = url if path is None else path.as_uri()
        self.schema = schema
        self.foreign: list[pa.Field] = []  # columns that the opened table has besides, left null
        self._partition_by = list(partition_by)
        self._statistics = list(statistics)
        self._settings = settings
        self._tokens = _tokens(settings.auth, urlsplit(url).hostname or "")

    def lasts(self) -> float:
        """Seconds for which a handle opened just now is good: a token that it was given is its own."""
        longest = self._settings.reopen_seconds
        ends = None if local_path(self.url) is not None else self._tokens.expires_at
        if ends is None:
            return longest
        left = ends - time.time()
        return max(_SOONEST_S, min(longest, left - min(_AHEAD_S, left * _AHEAD_SHARE)))

    def open(self) -> DeltaTable:
        """The table, checked; raises ConfigError where its columns do not fit, and the table layer's own.

        It is created only if there is none, and never by overwriting; another writer creating it at the
        same moment is fine.
        """
        table = self._reach(self._opened)
        self._check(table)
        return table

    def at(self, version: int) -> DeltaTable:
        """The table as it was at an older version, unchecked; raises the table layer's DeltaError."""
        return self._reach(
            lambda options: DeltaTable(self.location, version=version, storage_options=options)
        )

    def existing(self) -> DeltaTable:
        """The table as it is, unchecked and never created; raises the table layer's own."""
        return self._reach(lambda options: DeltaTable(self.location, storage_options=options))

    def exists(self) -> bool:
        """Whether there is a table; raises the table layer's own."""
        try:
            self.existing()  # the table layer's own question whether there is one stops all threads
        except TableNotFoundError:
            return False
        return True

    def files(self) -> TableFiles:
        """Its files, reached as the table is."""
        return TableFiles(self.url, storage_options(self.url, self._tokens))

    def problems(self, table: DeltaTable) -> list[str]:
        """What of the table's columns and partitions does not fit, a sentence each."""
        return [*self._misfits(table, {field.name: field for field in table.schema().fields})]

    def _reach(self, reach: Callable[[dict[str, str]], T]) -> T:
        """``reach`` with the token of this moment; where it is not taken, once more with a new one."""
        options = storage_options(self.url, self._tokens)
        try:
            return reach(options)
        except (DeltaError, OSError) as error:
            if "bearer_token" not in options or not is_unauthenticated(error):
                raise
        self._tokens.refresh(options["bearer_token"])
        return reach(storage_options(self.url, self._tokens))

    def _opened(self, options: dict[str, str]) -> DeltaTable:
        try:
            return DeltaTable(self.location, storage_options=options)
        except TableNotFoundError:
            return self._create(options)

    def _create(self, options: dict[str, str]) -> DeltaTable:
        configuration: dict[str, str | None] = {
            "delta.checkpointInterval": str(self._settings.checkpoint_commits),
            "delta.logRetentionDuration": _interval(self._settings.log_retention_hours),
            # Until then every checkpoint carries the names of the files that were compacted away.
            "delta.deletedFileRetentionDuration": _interval(self._settings.vacuum_hours),
        }
        if self._statistics:
            configuration["delta.dataSkippingStatsColumns"] = ",".join(self._statistics)
        try:
            table = DeltaTable.create(
                self.location,
                self.schema,
                mode="error",
                partition_by=self._partition_by,
                configuration=configuration,
                storage_options=options,
            )
        except DeltaError:
            # Another writer was first, or creating failed: opening tells which, with its own error.
            return DeltaTable(self.location, storage_options=options)
        _log.info("created the table %s", self.url, extra={"table": self.url})
        return table

    def _check(self, table: DeltaTable) -> None:
        found = {field.name: field for field in table.schema().fields}
        if problems := [*self._misfits(table, found)]:
            advice = "alter the table, or move it away and it is created anew"
            raise ConfigError([f"table {self.url}: {problem}; {advice}" for problem in problems])
        self.foreign = [field for field in pa.schema(table.schema().to_arrow()) if field.name in found]

    def _misfits(self, table: DeltaTable, found: dict[str, Field]) -> Iterator[str]:
        """What does not fit; leaves the columns that are not ours in ``found``."""
        for field in Schema.from_arrow(self.schema).fields:
            there = found.pop(field.name, None)
            if there is None:
                yield f"column {field.name} is missing; wanted: {_kind(field)}"
            elif _kind(there) != _kind(field):
                yield f"column {field.name} is {_kind(there)}; wanted: {_kind(field)}"
        for field in found.values():
            if not field.nullable:
                yield f"column {field.name}, which is not ours, must allow null"
        partitions = table.metadata().partition_columns
        if partitions != self._partition_by:
            yield f"it is partitioned by {partitions}; wanted: {self._partition_by}"


def _interval(hours: float) -> str:
    return f"interval {max(1, round(hours * 3600))} seconds"


def _kind(field: Field) -> str:
    """The column's type in words, without whether it allows null."""
    kind = json.loads(field.type.to_json())
    if isinstance(kind, dict) and kind.get("type") == "array":
        return f"list of {kind['elementType']}"
    return str(kind)

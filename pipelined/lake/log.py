"""The log of a table: what its versions were, and how it is kept short on a local disk."""

from __future__ import annotations

import datetime as dt
import json
import re
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from deltalake import DeltaTable

from pipelined.lake.durable import LocalDisk
from pipelined.lake.files import StoredFile, TableFiles
from pipelined.lake.positions import LOOKED

__all__ = ["Version", "history", "tidy"]

_NAME = re.compile(r"_delta_log/(\d{20})\.(json|checkpoint\.parquet)$")
#: A reader that has listed the log reads it within this time.
_READING_S = 30
_CHECKPOINT_EVERY_S = 3600


class Version(NamedTuple):
    """One version: when, what it was, rows it added, files added and removed, and the positions it set."""

    version: int
    time: str
    operation: str
    rows: int
    added: int
    removed: int
    positions: dict[str, int]


def history(table: DeltaTable, files: TableFiles, limit: int) -> Iterator[Version]:
    """The last ``limit`` versions, the newest first, as far back as the log has them."""
    for number in range(table.version(), max(-1, table.version() - limit), -1):
        actions = files.commit(number)
        if actions is None:
            return
        yield _version(number, actions)


def _version(number: int, actions: list[dict[str, Any]]) -> Version:
    info: dict[str, Any] = {}
    rows = added = removed = 0
    positions: dict[str, int] = {}
    for action in actions:
        ((kind, body),) = action.items()
        if kind == "commitInfo":
            info = body
        elif kind == "add":
            added += 1
            rows += json.loads(body.get("stats") or "{}").get("numRecords", 0)
        elif kind == "remove":
            removed += 1
        elif kind == "txn":
            positions[body["appId"]] = body["version"]
    moment = dt.datetime.fromtimestamp(info.get("timestamp", 0) / 1000, dt.UTC)
    operation = info.get("operation", "")
    target = (info.get("operationParameters") or {}).get("version") if operation == "RESTORE" else None
    return Version(
        number,
        moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        operation if target is None else f"RESTORE to {target}",
        rows,
        added,
        removed,
        positions,
    )


def tidy(files: TableFiles, table: DeltaTable, disk: LocalDisk, keep: int) -> list[StoredFile]:
    """Remove what no version from the last ``keep`` on needs; of older checkpoints one an hour stays.

    Whoever commits, or opens the table, lists the whole log: unlike an object store, a folder cannot be
    listed from a name on. Commits nobody has looked through for a RESTORE stay, and whatever is so young
    that a reader may be about to open it.
    """
    commits: dict[int, StoredFile] = {}
    checkpoints: dict[int, StoredFile] = {}
    for file in files.log():
        if found := _NAME.search(file.path):
            (commits if found[2] == "json" else checkpoints)[int(found[1])] = file
    floor = min(table.version() - keep, table.transaction_version(LOOKED) or 0)
    base = max((number for number in checkpoints if number <= floor), default=None)
    if base is None:
        return []
    disk.sync_checkpoint(base)
    youngest = time.time() - _READING_S
    unneeded = [file for number, file in commits.items() if number < base and file.modified < youngest]
    hours: set[int] = set()
    for number, file in sorted(checkpoints.items(), reverse=True):
        hour = int(file.modified // _CHECKPOINT_EVERY_S)
        if number < base and hour in hours and file.modified < youngest:
            unneeded.append(file)
        hours.add(hour)
    return [file for file in unneeded if files.remove(file)]

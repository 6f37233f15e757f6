"""For crash points only: the first half of an append, and exactly that - data files without a commit.

An append is one call of the table layer, so nothing of ours runs between its two halves. But it takes the
rows from a stream, and cannot commit before the stream has ended: with one that never ends, its data files
appear under their final names, in their folders, and no commit can follow.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
from deltalake import DeltaTable, write_deltalake

__all__ = ["write_data_only"]

#: More than the table layer gathers before it writes anything.
_ROWS = 20_000


def write_data_only(table: DeltaTable, rows: pa.Table, folder: Path, options: dict[str, Any]) -> None:
    """Return as soon as a data file of ``rows``, of which there must be one, lies in the table's ``folder``.

    ``options`` are those of the append. The stream goes on: whoever calls this ends the process next.
    """
    there = set(folder.rglob("*.parquet"))
    stream = pa.RecordBatchReader.from_batches(rows.schema, _without_end(rows))
    threading.Thread(
        target=write_deltalake, args=(table, stream), kwargs={**options, "target_file_size": 1}, daemon=True
    ).start()
    while there.issuperset(folder.rglob("*.parquet")):
        pass


def _without_end(rows: pa.Table) -> Iterator[pa.RecordBatch]:
    many = rows.take(pa.array([number % rows.num_rows for number in range(_ROWS)]))
    while True:
        yield from many.to_batches()

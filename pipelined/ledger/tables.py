"""The tables, read a few columns at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from pipelined.auth import STORAGE_SCOPE, provider
from pipelined.config.tree import Config
from pipelined.errors import RecordError, UnavailableError
from pipelined.ledger.evidence import AttachmentRow
from pipelined.logs.masking import mask

__all__ = ["TableReader"]


class TableReader:
    """The three tables of the pipeline, each read in its newest version at the moment of the call.

    ``UnavailableError`` when a table is there and cannot be read.
    """

    def __init__(self, config: Config) -> None:
        self._domain = config.domain
        self._url = config.tables.url.rstrip("/")
        host = urlsplit(self._url).hostname or ""
        self._tokens = provider(config.tables.auth, STORAGE_SCOPE, section="tables.auth", host=host)

    def event_rows(self) -> Iterator[str] | None:
        """The trace id of each row of the events table, None where there is no table."""
        rows = self._rows("events", ["trace_id"])
        return None if rows is None else (str(row[0]) for row in rows)

    def attachment_rows(self) -> Iterator[AttachmentRow] | None:
        """Each row of the attachments table, None where there is no table."""
        columns = ["trace_id", "attachment_id", "status", "blob_path", "bytes_downloaded", "sha256"]
        rows = self._rows("attachments", columns)
        return None if rows is None else (AttachmentRow(*row) for row in rows)

    def failed_rows(self) -> Iterator[str] | None:
        """The attachment id of each row of the table of failures, None where there is no table."""
        rows = self._rows("attachments_failed", ["attachment_id"])
        return None if rows is None else (str(row[0]) for row in rows)

    def count(self, name: str) -> int:
        """Rows of the table of that name by the statistics in its log; 0 where there is no table."""
        table = self._open(name)
        return table.count() if table else 0

    def _open(self, name: str) -> DeltaTable | None:
        location = f"{self._url}/{self._domain}_{name}"
        if "://" not in location:
            location = "file://" + location
        try:
            return DeltaTable(location, storage_options=self._options())
        except TableNotFoundError:
            return None
        except (DeltaError, OSError) as error:
            raise UnavailableError(f"the table {location} cannot be opened: {mask(str(error))}") from error

    def _options(self) -> dict[str, str]:
        if self._url.startswith(("file:", "/")):
            return {}
        options = {"timeout": "30s", "connect_timeout": "10s", "retry_timeout": "60s"}
        try:
            token = self._tokens.token()
        except RecordError as error:
            raise UnavailableError(f"the tables {self._url} cannot be read: {error}") from error
        return {**options, "bearer_token": token} if token else options

    def _rows(self, name: str, columns: list[str]) -> Iterator[tuple[Any, ...]] | None:
        table = self._open(name)
        return None if table is None else _stream(table, name, columns)


def _stream(table: DeltaTable, name: str, columns: list[str]) -> Iterator[tuple[Any, ...]]:
    try:
        for batch in _batches(table, columns):
            yield from zip(*(batch.column(column).to_pylist() for column in columns), strict=True)
    except (DeltaError, OSError, pa.ArrowException, KeyError) as error:
        raise UnavailableError(f"the table {name} cannot be read: {mask(str(error))}") from error


def _batches(table: DeltaTable, columns: list[str]) -> Iterable[pa.RecordBatch]:
    # Through pyarrow's reader, which lets other threads run while it waits for the storage.
    reader: Iterable[pa.RecordBatch] = pa.RecordBatchReader.from_stream(table.scan(columns=columns))
    return reader

"""The tables and their columns: names, types and order are what users' queries rely on."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

__all__ = ["ATTACHMENTS", "EVENTS", "FAILED", "TABLES", "TableSpec"]

TIME = pa.timestamp("us", "UTC")


@dataclass(frozen=True, slots=True)
class TableSpec:
    """One table: its columns in order, how it is partitioned, and what identifies a row.

    No two rows have the same ``identity``, where there is one. ``merge_keys`` make the table an upsert
    table: one row for each key, the latest. ``statistics`` are the columns whose least and greatest value
    stand in the log, so that readers skip files.
    """

    suffix: str
    schema: pa.Schema
    statistics: tuple[str, ...]
    identity: tuple[str, ...] = ()
    merge_keys: tuple[str, ...] = ()
    partition_by: tuple[str, ...] = ("event_date",)

    def name(self, domain: str) -> str:
        """The table's name: ``xact_events`` for the domain ``xact``."""
        return f"{domain}_{self.suffix}"


def _texts(names: str) -> list[tuple[str, pa.DataType]]:
    return [(name, pa.string()) for name in names.split()]


EVENTS = TableSpec(
    "events",
    pa.schema(
        [
            *_texts("type status_subtype version"),
            ("ingested_at", TIME),
            ("event_time", TIME),
            ("event_date", pa.date32()),
            *_texts("trace_id description assignment_id original_assignment_id xn_address carrier_id"),
            *_texts("estimate_version note author sender_reviewer_name sender_reviewer_email"),
            *_texts("carrier_reviewer_name carrier_reviewer_email event_datetime_mdt"),
            ("attachments", pa.list_(pa.string())),
            *_texts("claim_number contact_type contact_name contact_phone_type contact_phone_number"),
            *_texts("contact_phone_extension contact_email_address raw_json source"),
            ("created_at", TIME),
        ]
    ),
    statistics=("event_time", "ingested_at", "trace_id"),
    identity=("trace_id",),
)

_RESULT: list[tuple[str, pa.DataType]] = [
    *_texts("trace_id attachment_id attachment_url blob_path status_subtype file_type assignment_id status"),
    ("original_timestamp", TIME),
    ("created_at", TIME),
    ("http_status", pa.int32()),
    ("bytes_downloaded", pa.int64()),
    ("sha256", pa.string()),
    ("retry_count", pa.int32()),
    *_texts("error_category error_message"),
    ("expires_at", TIME),
    ("expired_at_ingest", pa.bool_()),
]

ATTACHMENTS = TableSpec(
    "attachments",
    pa.schema([*_RESULT, ("event_date", pa.date32()), ("updated_at", TIME)]),
    statistics=("original_timestamp", "updated_at", "trace_id", "attachment_id"),
    identity=("trace_id", "attachment_id"),
    merge_keys=("trace_id", "attachment_id"),
)

FAILED = TableSpec(
    "attachments_failed",
    pa.schema([*_RESULT, ("failed_at", TIME), ("event_date", pa.date32())]),
    statistics=("original_timestamp", "failed_at", "trace_id"),
)

TABLES = (EVENTS, ATTACHMENTS, FAILED)

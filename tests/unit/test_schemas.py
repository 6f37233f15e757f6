from __future__ import annotations

import pyarrow as pa

from pipelined.lake.schemas import ATTACHMENTS, EVENTS, FAILED, TABLES
from pipelined.messages.task import Result

EVENT_COLUMNS = """type, status_subtype, version, ingested_at, event_time, event_date, trace_id, description,
assignment_id, original_assignment_id, xn_address, carrier_id, estimate_version, note, author,
sender_reviewer_name, sender_reviewer_email, carrier_reviewer_name, carrier_reviewer_email,
event_datetime_mdt,
attachments, claim_number, contact_type, contact_name, contact_phone_type, contact_phone_number,
contact_phone_extension, contact_email_address, raw_json, source, created_at"""


def test_the_events_table_has_the_columns_of_the_contract_in_their_order() -> None:
    assert EVENTS.schema.names == [name.strip() for name in EVENT_COLUMNS.split(",")]


def test_everything_taken_out_of_an_event_is_text_and_attachments_are_a_list_of_it() -> None:
    other = {"ingested_at", "event_time", "event_date", "created_at", "attachments"}
    assert {str(f.type) for f in EVENTS.schema if f.name not in other} == {"string"}
    assert EVENTS.schema.field("attachments").type == pa.list_(pa.string())


def test_the_attachment_tables_begin_with_the_fields_of_a_result_in_its_order() -> None:
    fields = list(Result.__struct_fields__)
    assert ATTACHMENTS.schema.names == [*fields, "event_date", "updated_at"]
    assert FAILED.schema.names == [*fields, "failed_at", "event_date"]


def test_times_are_in_microseconds_utc_and_dates_are_dates_in_every_table() -> None:
    for table in TABLES:
        times = [f for f in table.schema if f.name.endswith(("_at", "_time", "_timestamp"))]
        assert times
        assert {f.type for f in times} == {pa.timestamp("us", "UTC")}
        assert table.schema.field("event_date").type == pa.date32()


def test_statistics_and_keys_name_columns_that_exist() -> None:
    for table in TABLES:
        assert {*table.statistics, *table.merge_keys, *table.partition_by} <= set(table.schema.names)


def test_a_table_is_named_after_the_domain_as_it_is_written() -> None:
    assert [table.name("xact") for table in TABLES] == [
        "xact_events",
        "xact_attachments",
        "xact_attachments_failed",
    ]
    assert EVENTS.name("claim-x") == "claim-x_events"

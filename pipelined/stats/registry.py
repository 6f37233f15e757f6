"""Every metric, declared once: name, type, unit, labels, what it means, what to do about it.

The shared slots take their layout from this module, ``/metrics`` is rendered from it, and the reference
(docs/reference/metrics.md), rules and dashboards are checked against it. Names follow Prometheus:
``pipelined_`` in front, the unit at the end, ``_total`` on counters. The labels ``worker`` and ``index``
are added to every series when it is rendered.
"""

from __future__ import annotations

import functools
import hashlib

from pipelined.stats.metric import RECORDS, SECONDS, Kind, Metric, declare
from pipelined.stats.source_metrics import SOURCE_METRICS

__all__ = ["METRICS", "SOURCES", "Kind", "Metric", "schema_hash"]


METRICS: list[Metric] = []
_declare = functools.partial(declare, METRICS)

#: Values of the header ``source``; whatever else it says is "other".
SOURCES = ("eventhouse", "eventhub", "local", "other")
_CATEGORIES = ("transient", "permanent", "auth", "dependency_down", "poison", "bug")

RECORDS_IN = _declare(
    Kind.COUNTER,
    "records_in_total",
    "Records taken from the input topics, or rows from the source.",
    "Flat while the lag grows: the worker is stuck or paused; see `pipelinectl status`.",
)
RECORDS_DONE = _declare(
    Kind.COUNTER,
    "records_done_total",
    "Records whose outcome is committed, by what became of them.",
    "A growing share of dead letters or retries names its cause in failures_total.",
    "outcome",
    ("done", "retried", "dead", "duplicate", "moved"),
)
RECORDS_OUT = _declare(
    Kind.COUNTER,
    "records_out_total",
    "Messages produced, or rows written, and committed.",
    "Compare with records_in_total of the next worker.",
)
FAILURES = _declare(
    Kind.COUNTER,
    "failures_total",
    "Attempts that failed, by category.",
    "transient: the other side; auth: our credentials; dependency_down: a service of ours; "
    "poison: the sender; bug: us. The log has the code of each.",
    "category",
    _CATEGORIES,
)
DEAD_LETTERS = _declare(
    Kind.COUNTER,
    "dead_letters_total",
    "Records sent to a dead-letter topic, by category.",
    "Read them: the reason headers of each record say what failed.",
    "category",
    _CATEGORIES,
)
REJECTED = _declare(
    Kind.COUNTER,
    "attachments_rejected_total",
    "Attachments refused at ingest, by the URL policy or their expiry.",
    "Each is a failed_permanent result; an unknown host may belong on urls.allowed_hosts.",
)
STUCK = _declare(
    Kind.COUNTER,
    "records_stuck_total",
    "Records put off because they held up the first offset of their partition for longer than stuck_s.",
    "Each goes to a retry tier. Many: a host or the store is very slow; see the warnings, which name them.",
)
RECORDS_EXPIRED = _declare(
    Kind.COUNTER,
    "records_expired_total",
    "Offsets removed from a topic by retention before this worker's group had read them.",
    "They are lost to the pipeline. Keep the topic longer, load them again, and find out why it lagged.",
)
WRONG_SHAPES = _declare(
    Kind.COUNTER,
    "wrong_shapes_total",
    "Fields of events that had another shape than expected, and were taken as null.",
    "Look at raw_json of recent rows: the source may have changed its payload.",
)
TRANSACTIONS = _declare(
    Kind.COUNTER,
    "transactions_total",
    "Kafka transactions, by how they ended.",
    "Aborts at each rebalance are normal; a steady rate of them means brokers or network in trouble.",
    "result",
    ("committed", "aborted"),
)
REBALANCES = _declare(
    Kind.COUNTER,
    "rebalances_total",
    "Changes of the partitions held, by what happened.",
    "`lost` means that the worker was silent for longer than the session timeout.",
    "event",
    ("assigned", "revoked", "lost"),
)
PAUSES = _declare(
    Kind.COUNTER,
    "pauses_total",
    "Times the worker paused because something it relies on was down, full or refused it.",
    "The log names it; the records wait.",
)
TABLE_COMMITS = _declare(
    Kind.COUNTER,
    "table_commits_total",
    "Delta commits, by result.",
    "failed: the store or its credentials; conflict: another writer on the same table.",
    "result",
    ("ok", "conflict", "ambiguous_resolved", "skipped_duplicate", "failed"),
)
MAINTENANCE = _declare(
    Kind.COUNTER,
    "table_maintenance_total",
    "Looks at a table by the worker table-maintenance, by what came of them.",
    "failed: the log says why; the sinks go on, but slow down while nobody compacts.",
    "result",
    ("ok", "failed"),
)
COMPACTED = _declare(
    Kind.COUNTER,
    "table_files_compacted_total",
    "Small files of tables that were joined into larger ones.",
    "Flat under load: see table_maintenance_total.",
)
SWEPT = _declare(
    Kind.COUNTER,
    "table_bytes_removed_total",
    "Bytes of files removed from the tables: vacuumed, left behind by killed writers, old log.",
    "Flat for days while table_files_compacted_total grows: the disk fills up; see tables.vacuum_hours.",
)
MAINTAINED = _declare(
    Kind.GAUGE,
    "table_maintenance_timestamp_seconds",
    "When the last complete maintenance of the table that has waited longest ended; 0: never.",
    "Older than twice tables.maintenance_hours: see table_maintenance_total.",
)
BYTES = _declare(
    Kind.COUNTER,
    "file_bytes_total",
    "Bytes of files downloaded or uploaded, and committed.",
    "Zero while files are pending: see failures_total of the same worker.",
)
RETRIES = _declare(
    Kind.COUNTER,
    "retries_total",
    "Records sent to a retry topic, or back for another attempt.",
    "A burst names a host or service in trouble.",
)
IN_FLIGHT = _declare(
    Kind.GAUGE,
    "in_flight_records",
    "Records taken and not yet committed.",
    "At the window's size: the stage is slow.",
)
LAG = _declare(
    Kind.GAUGE,
    "consumer_lag_records",
    "Records in the input topics behind the committed position of this worker's partitions.",
    "Growing: add processes, or see why the worker is slow.",
)
PARTITIONS = _declare(
    Kind.GAUGE,
    "assigned_partitions",
    "Input partitions this worker holds.",
    "0 on all members of a type: the group has no members or no topic.",
)
PAUSED = _declare(
    Kind.GAUGE,
    "paused",
    "1 while the worker pauses because of a dependency or the DLQ breaker.",
    "See the log.",
)
DLQ_BREAKER = _declare(
    Kind.GAUGE,
    "dlq_breaker_open",
    "1 while the DLQ breaker holds the worker because too many records were dead letters.",
    "Find the cause in the DLQ; then restart the worker to go on.",
)
OPEN_HOSTS = _declare(
    Kind.GAUGE,
    "open_hosts",
    "Download hosts whose breaker is open: they failed several times in a row and are left alone.",
    "Their tasks wait in the first retry topic. The failures in the log name the host and what it did.",
)
KNOWN_IDS = _declare(
    Kind.GAUGE,
    "known_trace_ids",
    "Trace ids held to recognise duplicates.",
    "26 to 48 bytes each; lower ingest.dedup_horizon_hours if memory is short.",
)
SOURCE_SEEN = _declare(
    Kind.COUNTER,
    "source_events_seen_total",
    "Events on events.raw that the ingester judged, by the source that brought them.",
    "More than first and duplicate together: the rest was refused, see dead_letters_total.",
    "source",
    SOURCES,
)
SOURCE_FIRST = _declare(
    Kind.COUNTER,
    "source_events_first_total",
    "Events that this source brought first: those that go on.",
    "Flat while source_events_seen_total grows: another source is ahead, or the source repeats itself.",
    "source",
    SOURCES,
)
SOURCE_DUPLICATE = _declare(
    Kind.COUNTER,
    "source_events_duplicate_total",
    "Events that this source brought although they were known already.",
    "With two sources on, one of them has all: expected. With one: it repeats itself.",
    "source",
    SOURCES,
)
SOURCE_MATCHED = _declare(
    Kind.COUNTER,
    "source_events_matched_total",
    "Events that this source brought first and another source brought later.",
    "source_events_first_total less this is what only this source has brought so far.",
    "source",
    SOURCES,
)
LAST_PROGRESS = _declare(
    Kind.GAUGE,
    "last_progress_timestamp_seconds",
    "When the worker last committed something, or had nothing to do.",
    "Old while there is lag: stuck. The supervisor restarts a loop that stands still.",
)
OLDEST = _declare(
    Kind.GAUGE,
    "oldest_in_flight_timestamp_seconds",
    "Arrival of the oldest record taken and not yet committed; 0 where there is none.",
    "Old: one slow record, or a paused stage.",
)
LOG_SUPPRESSED = _declare(
    Kind.COUNTER,
    "log_messages_dropped_total",
    "Log messages that could not be written.",
    "The log's disk or journald.",
)
BATCH_RECORDS = _declare(
    Kind.HISTOGRAM,
    "commit_records",
    "Records in one commit.",
    "Small under load: see the time of commits.",
    buckets=RECORDS,
)
COMMIT_SECONDS = _declare(
    Kind.HISTOGRAM,
    "commit_seconds",
    "Time of one commit: a Kafka transaction, or a Delta commit with its fsync.",
    "Slow: brokers, or the store of the tables.",
    buckets=SECONDS,
)
EVENT_AGE = _declare(
    Kind.HISTOGRAM,
    "record_age_seconds",
    "Time from a record's arrival on its input topic to the commit of its outcome.",
    "The time through this stage: what users feel.",
    buckets=SECONDS,
)
LOOP_SECONDS = _declare(
    Kind.COUNTER,
    "loop_milliseconds_total",
    "Where the worker's time goes, in milliseconds.",
    "commit: brokers or store; work: the stage; idle: nothing to do; paused: see `paused`.",
    "state",
    ("idle", "work", "commit", "paused"),
)

#: Those of pipelined/stats/source_metrics.py.
METRICS += SOURCE_METRICS


def schema_hash() -> int:
    """A 63-bit number that changes with the layout of the slots."""
    text = "\n".join(f"{m.name} {m.kind} {m.label} {m.values} {m.buckets}" for m in METRICS)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1

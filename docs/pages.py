"""The pages of the reference about metrics, topics and tables."""

from __future__ import annotations

from docs.markdown import code, page, table
from pipelined.config import Config
from pipelined.config.leaves import sections
from pipelined.kafka.settings import HEADER_ROOM, Names
from pipelined.kafka.topics import STREAMS, Declared, declared
from pipelined.lake.schemas import TABLES, TableSpec
from pipelined.stats.disks import DISK_METRICS
from pipelined.stats.registry import METRICS, Metric
from pipelined.stats.rendering import SUPERVISOR_METRICS

__all__ = ["metrics", "tables", "topics"]

_METRICS = """\
Served at `/metrics` of the endpoint (`endpoint.host`, `endpoint.port`), as text for Prometheus or as
OpenMetrics. Beside it are

- `/livez`: 503 while a work loop or the supervisor stands still, and which;
- `/readyz`: 503 while a worker does not do its job, and why;
- `/status`: the JSON of `pipelinectl status --json`.

Every series of a worker carries the labels `worker` and `index`. Counters go on when a worker restarts, and
begin anew with the daemon."""

_TOPICS = """\
The names are those of the default domain, `xact`. Another `domain` gives other names, and each can be named
by itself (`name` in its section). The key of every record is the trace id; of a checkpoint, the source.
`pipelinectl topics plan` shows how a cluster differs from this; no topic is made by using it."""

_TABLES = """\
Delta tables, each a folder of its name in `tables.url`; the names are those of the default domain. A reader
sees whole commits only. Times are in µs, UTC. A table that is missing is created. Columns of yours beside
these are left null and must allow it; where a column of ours is missing or of another type, the worker ends
with exit code 78."""

#: Who writes and who reads each stream.
_USERS = {
    "events_raw": (
        "eventhouse-poller, eventhub-reader, `pipelinectl load`, `pipelinectl backfill`",
        "event-ingester",
    ),
    "events_ingested": (
        "event-ingester",
        "event-writer; event-ingester, for its memory at the start",
    ),
    "events_dlq": ("event-ingester", "you"),
    "downloads_pending": ("event-ingester, retry-scheduler, upload", "download"),
    "downloads_cached": ("download", "upload"),
    "downloads_results": ("upload; download and event-ingester for failures", "result-processor"),
    "downloads_retry": ("download, upload", "retry-scheduler"),
    "downloads_dlq": (
        "download, upload; event-ingester for attachments it refuses; the others for what they cannot read",
        "you",
    ),
    "checkpoints": (
        "eventhouse-poller, eventhub-reader, `pipelinectl load`, `pipelinectl backfill`, with their events; "
        "`pipelinectl sources reset`",
        "the same; `pipelinectl sources show`",
    ),
}

_ROWS = {
    "events": "One row for each valid source event. A column without a value is null; texts that came as "
    "numbers are texts.",
    "attachments": "One row for each attachment with its latest outcome: the fields of the "
    "[result](messages.md#result), its day, and when the row was written. A later outcome replaces the row.",
    "attachments_failed": "One row for each final failure. A later success does not remove it.",
}


def metrics() -> str:
    """Every metric."""
    own = table(["metric", "type", "label", "meaning", "what to do"], map(_metric, METRICS))
    of_parent = table(
        ["metric", "type", "label", "meaning"],
        ([code(name), kind, code(label), meaning] for name, kind, label, meaning in SUPERVISOR_METRICS),
    )
    return page(
        "Metrics",
        "`pipelined/stats/registry.py`, `rendering.py` and `disks.py` beside it",
        _METRICS,
        "## What each worker counts",
        own,
        "## What the parent knows of its workers, and of itself",
        of_parent,
        "## What the endpoint sees of the disks",
        table(
            ["metric", "type", "label", "meaning"],
            ([code(name), "gauge", code(label), meaning] for name, label, meaning in DISK_METRICS),
        ),
    )


def _metric(metric: Metric) -> list[str]:
    label = f"`{metric.label}`: {', '.join(metric.values)}" if metric.label else ""
    return [code(metric.name), str(metric.kind), label, metric.help, metric.remedy]


def topics() -> str:
    """Every topic that the defaults declare."""
    config = Config()
    names = Names(config)
    meanings = {section.path: section.help for section in sections()}
    by_name = {topic.name: topic for topic in declared(config)}
    rows = []
    for stream in STREAMS:
        writers, readers = _USERS[stream]
        for name in names.topics(stream):
            topic = by_name[name]
            rows.append(
                [
                    code(name),
                    code(f"topics.{stream}"),
                    meanings[f"topics.{stream}"],
                    topic.partitions,
                    _kept(topic),
                    writers,
                    readers,
                ]
            )
    settings = (
        f"Every topic has `min.insync.replicas` {config.topics.min_insync_replicas}, "
        f"{config.topics.replication_factor} copies, and takes messages of `kafka.max_message_bytes` "
        f"({config.kafka.max_message_bytes:,} bytes), all but events.raw {HEADER_ROOM:,} more for headers."
    )
    return page(
        "Topics",
        "`pipelined/kafka/topics.py` and the defaults of the configuration",
        _TOPICS,
        table(["topic", "configured at", "holds", "partitions", "kept", "written by", "read by"], rows),
        settings,
        "What the records hold: [messages](messages.md).",
    )


def _kept(topic: Declared) -> str:
    if topic.settings["cleanup.policy"] == "compact":
        return "the last record of each key"
    milliseconds = int(topic.settings["retention.ms"])
    return "for ever" if milliseconds < 0 else f"{milliseconds / 86_400_000:g} days"


def tables() -> str:
    """Every table with its columns."""
    return page("Tables", "`pipelined/lake/schemas.py`", _TABLES, *(_table(spec) for spec in TABLES))


def _table(spec: TableSpec) -> str:
    facts = [f"partitioned by {', '.join(map(code, spec.partition_by))}"]
    if spec.merge_keys:
        facts.append(f"one row for each {' and '.join(map(code, spec.merge_keys))}")
    facts.append(f"statistics for skipping files on {', '.join(map(code, spec.statistics))}")
    columns = table(["column", "type"], ([code(field.name), _type(str(field.type))] for field in spec.schema))
    name = spec.name(Config().domain)
    return f"## {name}\n\n{_ROWS[spec.suffix]} It is {'; '.join(facts)}.\n\n{columns}"


def _type(arrow: str) -> str:
    names = {
        "timestamp[us, tz=UTC]": "timestamp, UTC",
        "date32[day]": "date",
        "int32": "integer",
        "int64": "long",
        "bool": "boolean",
    }
    return "list of string" if arrow.startswith("list") else names.get(arrow, arrow)

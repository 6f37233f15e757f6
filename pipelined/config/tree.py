"""The configuration: one tree of frozen dataclasses, built once by ``config.loading`` and passed whole.

Every key is declared here and nowhere else, with its meaning, unit, default and limits;
``etc/pipelined.toml`` and the reference are generated from these declarations.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

from pipelined.config.auth import Auth
from pipelined.config.cluster import Kafka, Topic, Topics
from pipelined.config.keys import key, section
from pipelined.config.sources import Columns, Eventhouse, Eventhub, Sources
from pipelined.config.work import Breaker, Download, Files, Ingest, Retry, Tables, Upload, Urls

__all__ = [
    "SOURCE_TYPES",
    "WITHOUT_KAFKA",
    "WORKER_TYPES",
    "Auth",
    "Breaker",
    "Columns",
    "Config",
    "Download",
    "Endpoint",
    "Eventhouse",
    "Eventhub",
    "Files",
    "Ingest",
    "Kafka",
    "Logs",
    "Retry",
    "Sources",
    "Supervisor",
    "Tables",
    "Topic",
    "Topics",
    "Upload",
    "Urls",
    "Worker",
    "Workers",
]


@dataclass(frozen=True, slots=True)
class Worker:
    """One worker type."""

    processes: int = key(1, "Processes of this type.", low=0, high=256)
    batch_records: int = key(5000, "Most records in one transaction.", unit="records", low=1, high=100000)
    window_records: int = key(
        20000, "Most records taken and not yet committed; beyond it the worker takes no more.", low=1
    )
    start_s: float = key(
        60.0,
        "Time without a sign while it starts, after which it is killed and restarted.",
        unit="seconds",
        low=0.1,
    )
    hang_s: float = key(
        60.0,
        "Time without a sign of its work loop after which it is killed and restarted.",
        unit="seconds",
        low=1,
    )
    drain_s: float = key(25.0, "Time to finish what is in hand when told to stop.", unit="seconds", low=0.1)
    memory_mb: int = key(
        0,
        "Resident memory of one process above which it drains and is restarted; 0: no limit. What the "
        "processes share, some 60 MB, counts for each.",
        unit="MB",
        low=0,
    )
    stuck_s: float = key(
        0.0,
        "For download and upload: a record that has held up the first offset of its partition for so long "
        "goes to a retry tier; 0: never.",
        unit="seconds",
        low=0,
    )


def _worker(
    batch: int, window: int, *, start_s: float = 60.0, hang_s: float = 60.0, stuck_s: float = 0.0
) -> functools.partial[Worker]:
    return functools.partial(
        Worker, batch_records=batch, window_records=window, start_s=start_s, hang_s=hang_s, stuck_s=stuck_s
    )


def _source() -> functools.partial[Worker]:
    """A source works when it is told of: its pages are of its own section, and it has no window."""
    return functools.partial(Worker, processes=0, batch_records=1, window_records=1)


@dataclass(frozen=True, slots=True)
class Workers:
    """The worker types, in the order of the flow."""

    eventhouse_poller: Worker = section(
        _source(),
        "The Eventhouse → events.raw; processes = 1 enables it. One process works, on one host at a time.",
    )
    eventhub_reader: Worker = section(
        _source(),
        "The Event Hub → events.raw; processes = 1 enables it. One process works, on one host at a time.",
    )
    event_ingester: Worker = section(
        _worker(5000, 20000, start_s=300.0),
        "events.raw → events.ingested and download tasks; rebuilds its memory at start.",
    )
    event_writer: Worker = section(
        _worker(20000, 40000, hang_s=300.0), "events.ingested → the table xact_events. One process."
    )
    retry_scheduler: Worker = section(_worker(1000, 20000), "The retry topics → downloads.pending, when due.")
    download: Worker = section(
        _worker(500, 1000, stuck_s=900.0), "downloads.pending → the cache folder → downloads.cached."
    )
    upload: Worker = section(
        _worker(500, 1000, stuck_s=900.0), "downloads.cached → the store → downloads.results."
    )
    result_processor: Worker = section(
        _worker(20000, 40000, hang_s=300.0),
        "downloads.results → xact_attachments and xact_attachments_failed. One process.",
    )
    table_maintenance: Worker = section(
        _worker(1, 1), "Compacts, vacuums and checkpoints the tables; when: see [tables]. One process."
    )
    endpoint: Worker = section(_worker(1, 1), "Metrics, health and status over HTTP. One process.")


#: Every worker type as it is written on a command line, in the order of the flow.
WORKER_TYPES: tuple[str, ...] = (
    "eventhouse-poller",
    "eventhub-reader",
    "event-ingester",
    "event-writer",
    "retry-scheduler",
    "download",
    "upload",
    "result-processor",
    "table-maintenance",
    "endpoint",
)
#: Those that bring events in from elsewhere. They have no input topic, and run only where they are enabled.
SOURCE_TYPES: tuple[str, ...] = ("eventhouse-poller", "eventhub-reader")
#: Those that have nothing to do with Kafka: they are members of no group.
WITHOUT_KAFKA: tuple[str, ...] = ("table-maintenance", "endpoint")


@dataclass(frozen=True, slots=True)
class Supervisor:
    """How the parent restarts what crashes."""

    backoff_first_s: float = key(
        0.5, "Wait before a restart; one after a healthy time is at once.", unit="seconds", low=0
    )
    backoff_max_s: float = key(60.0, "The longest wait; each is twice the one before.", unit="seconds", low=0)
    healthy_s: float = key(
        60.0, "Having been ready for so long, a worker that ends is restarted at once.", unit="seconds", low=0
    )
    max_restarts: int = key(20, "Restarts of one worker within the window after which it is given up.", low=1)
    restart_window_s: float = key(600.0, "That window.", unit="seconds", low=1)
    max_processes: int = key(
        16,
        "Most processes of one type that a reload or `pipelinectl scale` may bring it to while it runs. More "
        "than that only where the configuration says so at the start.",
        low=1,
        high=256,
    )
    on_fatal: str = key(
        "degrade",
        "When a worker is given up: go on with the others, or exit so that systemd decides.",
        choices=("degrade", "exit"),
    )


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The HTTP endpoint for metrics and health."""

    host: str = key("127.0.0.1", "Address to listen on.")
    port: int = key(
        9464, "Port to listen on; 0: any free one, told by `pipelinectl status`.", low=0, high=65535
    )


@dataclass(frozen=True, slots=True)
class Logs:
    """What is logged, and how."""

    level: str = key("INFO", "Least level that is logged.", choices=("DEBUG", "INFO", "WARNING", "ERROR"))
    format: str = key(
        "auto",
        "auto: readable on a terminal, with fields to journald under systemd, JSON elsewhere.",
        choices=("auto", "json", "text", "journal"),
    )
    repeats: int = key(
        20, "The same message so often within a minute, then only counted; 0: always.", low=0, high=1_000_000
    )
    file_mb: float = key(
        16.0,
        "The log file of a daemon in the background that is larger is put aside, and a new one begun; 0: "
        "never. For a longer past keep more files: the parent removes the oldest, within milliseconds.",
        unit="MB",
        low=0,
        high=32,
    )
    files_kept: int = key(8, "So many that were put aside are kept: pipelined.log.1 to .8.", low=1, high=100)


@dataclass(frozen=True, slots=True)
class Config:
    """The whole configuration."""

    domain: str = key("xact", "First part of topic, group and table names: letters, digits, - and _.")
    state_dir: str = key("/var/lib/pipelined", "Folder for the pidfile and the lock of this daemon.")
    cache_dir: str = key("/var/lib/pipelined/cache", "Folder for files between download and upload.")
    cache_hours: float = key(
        72.0, "Files left in the cache folder for so long are swept away.", unit="hours", low=0.1
    )
    runtime_dir: str = key("/run/pipelined", "Folder for the control socket.")
    kafka: Kafka = section(Kafka, "The Kafka cluster.")
    topics: Topics = section(Topics, "The topics.")
    sources: Sources = section(Sources, "What holds for every source.")
    eventhouse: Eventhouse = section(Eventhouse, "The Eventhouse that events are polled from.")
    eventhub: Eventhub = section(Eventhub, "The Event Hub that events are read from.")
    ingest: Ingest = section(Ingest, "Validity and deduplication of events.")
    urls: Urls = section(Urls, "Which attachment URLs may be fetched.")
    files: Files = section(Files, "Which attachment files are taken.")
    download: Download = section(Download, "Fetching attachments.")
    upload: Upload = section(Upload, "Bringing files to the store.")
    tables: Tables = section(Tables, "The Delta tables.")
    retry: Retry = section(Retry, "What happens to a record that failed for now.")
    breaker: Breaker = section(Breaker, "When to stop trying.")
    workers: Workers = section(Workers, "The worker types.")
    supervisor: Supervisor = section(Supervisor, "How the parent restarts what crashes.")
    endpoint: Endpoint = section(Endpoint, "The HTTP endpoint.")
    logs: Logs = section(Logs, "Logging.")

    def worker(self, worker_type: str) -> Worker:
        """The settings of a worker type, named as on the command line (``event-ingester``)."""
        settings = getattr(self.workers, worker_type.replace("-", "_"))
        assert isinstance(settings, Worker)
        return settings

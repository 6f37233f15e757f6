"""The configuration: one tree of frozen dataclasses, built once by ``config.loading`` and passed whole.

Every key is declared here and nowhere else, with its meaning, unit, default and limits;
``etc/pipelined.toml`` and the reference are generated from these declarations.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

from pipelined.config.keys import SECRET_HELP, key, section

__all__ = [
    "WORKER_TYPES",
    "Breaker",
    "Config",
    "Download",
    "Endpoint",
    "Files",
    "Ingest",
    "Kafka",
    "Logs",
    "Retry",
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
class Kafka:
    """The cluster that carries the pipeline, and how its clients behave."""

    bootstrap: str = key("127.0.0.1:9092", "Brokers to ask first: host:port, several with commas.")
    security_protocol: str = key(
        "PLAINTEXT",
        "How to connect.",
        choices=("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"),
    )
    sasl_mechanism: str = key(
        "PLAIN", "How to log in, with a SASL protocol.", choices=("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
    )
    sasl_username: str = key("", "The user, with a SASL protocol.")
    sasl_password: str = key("", "The password. " + SECRET_HELP, secret=True)
    ca_file: str = key("", "File of the certificates to trust (PEM); empty: the system's.")
    host: str = key("", "This host's name in member and transactional ids; empty: the machine's host name.")
    session_timeout_s: float = key(
        30.0,
        "How long a member may be silent before its partitions move to others. A worker that is killed and "
        "restarted within it gets its own partitions back at once.",
        unit="seconds",
        low=1,
        high=300,
    )
    transaction_timeout_s: float = key(
        20.0,
        "How long a transaction may stay open before the broker ends it; readers see nothing behind one "
        "that hangs.",
        unit="seconds",
        low=1,
        high=900,
    )
    compression: str = key(
        "lz4", "Compression of what is produced.", choices=("none", "gzip", "snappy", "lz4", "zstd")
    )
    max_message_bytes: int = key(
        4194304, "The largest message; declared on every topic.", unit="bytes", low=65536, high=104857600
    )
    fetch_queue_kbytes: int = key(
        16384,
        "Memory for messages fetched ahead, for each consumer; also the bound of one batch.",
        unit="kB",
        low=1024,
        high=2097151,
    )


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic: what `pipelinectl topics` applies, and the daemon insists on at its start."""

    name: str = key("", "Its name; empty: the domain and the name of this section, with dots.")
    partitions: int = key(6, "Number of partitions.", low=1, high=10000)
    retention_hours: float = key(168.0, "How long records are kept; -1: for ever.", unit="hours", low=-1)
    compacted: bool = key(False, "Keep the last record of each key instead of deleting by age.")


def _topic(
    partitions: int = 6, retention_hours: float = 168.0, compacted: bool = False
) -> functools.partial[Topic]:
    return functools.partial(
        Topic, partitions=partitions, retention_hours=retention_hours, compacted=compacted
    )


@dataclass(frozen=True, slots=True)
class Topics:
    """The topics of the pipeline, declared; nothing depends on the broker making them by itself."""

    replication_factor: int = key(3, "Copies of each partition.", low=1, high=9)
    min_insync_replicas: int = key(2, "Copies that must have a record before it counts.", low=1, high=9)
    events_raw: Topic = section(_topic(), "Events as received, duplicates included.")
    events_ingested: Topic = section(
        _topic(),
        "Valid events, each once. As many partitions as events_raw; kept longer than the deduplication horizon.",
    )
    events_dlq: Topic = section(_topic(3, 720.0), "Unreadable and invalid events, with their original bytes.")
    downloads_pending: Topic = section(_topic(), "Download tasks.")
    downloads_cached: Topic = section(_topic(), "Downloaded files that wait for their upload.")
    downloads_results: Topic = section(_topic(), "The outcome of each attachment.")
    downloads_retry: Topic = section(
        _topic(3), "The retry tiers: one topic for each delay, named NAME.<delay>."
    )
    downloads_dlq: Topic = section(_topic(3, 720.0), "Attachments that could not be done.")
    checkpoints: Topic = section(_topic(1, -1.0, True), "The position of each source.")


@dataclass(frozen=True, slots=True)
class Ingest:
    """The event ingester: validity and deduplication."""

    dedup_horizon_hours: float = key(
        24.0,
        "How far back, by the arrival of events, duplicates are recognised.",
        unit="hours",
        low=0.01,
        high=720,
    )


@dataclass(frozen=True, slots=True)
class Urls:
    """Which attachment URLs may be fetched."""

    allowed_hosts: tuple[str, ...] = key(
        ("*.amazonaws.com", "*.blob.core.windows.net"),
        "Hosts that may be fetched from: exact names, or *.suffix for every name below it.",
    )
    allowed_ports: tuple[int, ...] = key((443,), "Ports that may be fetched from.")
    allow_http: bool = key(False, "Allow http besides https. For the local stack only.")
    allowed_networks: tuple[str, ...] = key(
        (),
        "Networks (CIDR) that may be connected to although they are not public. For the local stack only.",
    )


@dataclass(frozen=True, slots=True)
class Files:
    """Which attachment files are taken."""

    max_bytes: int = key(1073741824, "The largest file.", unit="bytes", low=1)
    extensions: tuple[str, ...] = key(
        tuple(
            "pdf xml txt jpg jpeg png gif bmp tiff tif webp csv json html htm xls xlsx doc docx esx zip mov mp4".split()
        ),
        "File name extensions that are taken, without the dot. A name without one is judged by its content.",
    )
    content_types: tuple[str, ...] = key(
        (
            "application/pdf",
            "application/xml",
            "text/xml",
            "text/plain",
            "text/csv",
            "text/html",
            "application/json",
            "image/*",
            "video/quicktime",
            "video/mp4",
            "application/zip",
            "application/x-zip-compressed",
            "application/msword",
            "application/vnd.ms-excel",
            "application/vnd.openxmlformats-officedocument.*",
            "application/octet-stream",
            "binary/octet-stream",
        ),
        "Content types that are taken; a trailing * matches any rest. Generic ones are judged by the first bytes.",
    )
    accept_unknown_length: bool = key(
        False, "Take a body whose length the server did not announce; nothing proves that it is complete."
    )


@dataclass(frozen=True, slots=True)
class Download:
    """Fetching attachments."""

    concurrency: int = key(50, "Transfers at once, for each download process.", low=1, high=1000)
    connect_timeout_s: float = key(10.0, "Time to connect.", unit="seconds", low=0.1, high=600)
    timeout_s: float = key(
        60.0,
        "Time for a whole transfer, apart from the time for its size.",
        unit="seconds",
        low=1,
        high=86400,
    )
    low_speed_bytes: int = key(1000, "A transfer slower than this …", unit="bytes/s", low=1)
    low_speed_s: float = key(20.0, "… for so long is given up.", unit="seconds", low=1, high=3600)
    max_redirects: int = key(3, "Redirects followed, each checked like the first URL.", low=0, high=20)
    fsync_threads: int = key(4, "Threads that make files durable.", low=1, high=64)


@dataclass(frozen=True, slots=True)
class Upload:
    """Bringing files to the store."""

    url: str = key(
        "file:///var/lib/pipelined/files",
        "Where files go: file:///folder, abfss://workspace@onelake.dfs.fabric.microsoft.com/item/Files/…, "
        "az://, s3:// or any URL of obstore.",
    )
    concurrency: int = key(8, "Uploads at once, for each upload process.", low=1, high=256)
    timeout_s: float = key(60.0, "Time for one request to the store.", unit="seconds", low=1, high=3600)
    credential: str = key("", "Bearer token for the store. " + SECRET_HELP, secret=True)


@dataclass(frozen=True, slots=True)
class Tables:
    """The Delta tables."""

    url: str = key(
        "file:///var/lib/pipelined/tables",
        "The folder of the tables: file:///folder, abfss://…, az://…, s3://….",
    )
    flush_seconds: float = key(
        1.0, "Commit at the latest so long after the last commit began.", unit="seconds", low=0.05, high=3600
    )
    flush_rows: int = key(20000, "Commit as soon as so many rows wait.", unit="rows", low=1, high=1000000)
    flush_bytes: int = key(33554432, "Commit as soon as so much waits.", unit="bytes", low=65536)
    reopen_commits: int = key(
        50, "Reopen a table after so many commits: a handle slows down.", low=1, high=10000
    )
    reopen_seconds: float = key(900.0, "Reopen a table after so long: tokens expire.", unit="seconds", low=1)
    checkpoint_commits: int = key(
        100, "A checkpoint of the table's log every so many commits.", low=1, high=10000
    )
    log_retention_hours: float = key(
        48.0, "How long the table's log keeps old versions.", unit="hours", low=0.01
    )
    known_keys: int = key(
        2000000, "Attachment keys kept in memory to tell new rows from replacements.", unit="keys", low=1000
    )
    credential: str = key("", "Bearer token for the tables. " + SECRET_HELP, secret=True)


@dataclass(frozen=True, slots=True)
class Retry:
    """What happens to a record that failed for now."""

    delays_s: tuple[float, ...] = key(
        (300.0, 600.0, 1200.0, 2400.0),
        "The delay of each retry tier, ascending; each has a topic of its own.",
        unit="seconds",
    )
    jitter: float = key(0.1, "Delays are longer by a random share up to this.", low=0, high=1)
    max_attempts: int = key(4, "Attempts after the first; then the record goes to the DLQ.", low=0, high=100)
    bug_attempts: int = key(
        3, "Times one record may meet an unexpected exception before it goes to the DLQ.", low=1, high=100
    )
    pause_s: float = key(
        5.0,
        "How long a stage pauses when a dependency is down or refuses us, before it tries again.",
        unit="seconds",
        low=0.05,
        high=3600,
    )


@dataclass(frozen=True, slots=True)
class Breaker:
    """When to stop trying a host, and when to stop filling the DLQ."""

    failures: int = key(5, "Failures in a row that open the breaker of a download host.", low=1)
    open_s: float = key(30.0, "How long it stays open before one probe.", unit="seconds", low=0.01)
    dlq_run: int = key(
        500, "Dead letters in a row, on one partition, that stop the stage and raise the alarm.", low=1
    )
    dlq_share: float = key(
        0.5, "Share of dead letters among the last `dlq_window` records that does the same.", low=0.01, high=1
    )
    dlq_window: int = key(2000, "Records over which the share is taken.", unit="records", low=10)


@dataclass(frozen=True, slots=True)
class Worker:
    """One worker type."""

    processes: int = key(1, "Processes of this type.", low=0, high=256)
    batch_records: int = key(5000, "Most records in one transaction.", unit="records", low=1, high=100000)
    window_records: int = key(
        20000, "Most records taken and not yet committed; beyond it the worker takes no more.", low=1
    )
    start_s: float = key(60.0, "Time to become ready, before it counts as hung.", unit="seconds", low=0.1)
    hang_s: float = key(
        60.0,
        "Time without a sign of its work loop after which it is killed and restarted.",
        unit="seconds",
        low=1,
    )
    drain_s: float = key(25.0, "Time to finish what is in hand when told to stop.", unit="seconds", low=0.1)


def _worker(batch: int, window: int, start_s: float = 60.0) -> functools.partial[Worker]:
    return functools.partial(Worker, batch_records=batch, window_records=window, start_s=start_s)


@dataclass(frozen=True, slots=True)
class Workers:
    """The worker types, in the order of the flow."""

    event_ingester: Worker = section(
        _worker(5000, 20000, 300.0),
        "events.raw → events.ingested and download tasks; rebuilds its memory at start.",
    )
    event_writer: Worker = section(
        _worker(20000, 40000), "events.ingested → the table xact_events. One process."
    )
    retry_scheduler: Worker = section(_worker(1000, 20000), "The retry topics → downloads.pending, when due.")
    download: Worker = section(_worker(500, 1000), "downloads.pending → the cache folder → downloads.cached.")
    upload: Worker = section(_worker(500, 1000), "downloads.cached → the store → downloads.results.")
    result_processor: Worker = section(
        _worker(20000, 40000),
        "downloads.results → xact_attachments and xact_attachments_failed. One process.",
    )
    endpoint: Worker = section(_worker(1, 1), "Metrics, health and status over HTTP. One process.")


#: Every worker type as it is written on a command line, in the order of the flow.
WORKER_TYPES: tuple[str, ...] = (
    "event-ingester",
    "event-writer",
    "retry-scheduler",
    "download",
    "upload",
    "result-processor",
    "endpoint",
)


@dataclass(frozen=True, slots=True)
class Supervisor:
    """How the parent restarts what crashes."""

    backoff_first_s: float = key(
        0.5, "Wait before the first restart after a healthy time.", unit="seconds", low=0
    )
    backoff_max_s: float = key(60.0, "The longest wait; each is twice the one before.", unit="seconds", low=0)
    healthy_s: float = key(
        60.0, "Running so long makes the next wait the first again.", unit="seconds", low=0
    )
    max_restarts: int = key(20, "Restarts of one worker within the window after which it is given up.", low=1)
    restart_window_s: float = key(600.0, "That window.", unit="seconds", low=1)
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
        "auto: readable on a terminal, with priorities under journald, JSON elsewhere.",
        choices=("auto", "json", "text", "journal"),
    )


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

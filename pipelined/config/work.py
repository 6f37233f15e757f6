"""The sections of the work itself: events, URLs, files, transfers, tables, failures."""

from __future__ import annotations

from dataclasses import dataclass

from pipelined.config.auth import Auth
from pipelined.config.keys import key, section

__all__ = [
    "Breaker",
    "Download",
    "Files",
    "Ingest",
    "Retry",
    "Tables",
    "Upload",
    "Urls",
]


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
            "pdf xml txt jpg jpeg png gif bmp tiff tif webp csv json html htm "
            "xls xlsx doc docx esx zip mov mp4".split()
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
        "Content types that are taken; a trailing * matches any rest. Generic ones: judged by content.",
    )
    accept_unknown_length: bool = key(
        False, "Take a body whose length the server did not announce; nothing proves that it is complete."
    )


@dataclass(frozen=True, slots=True)
class Download:
    """Fetching attachments."""

    concurrency: int = key(50, "Transfers at once, for each download process.", low=1, high=1000)
    slow_share: float = key(
        0.5,
        "Share of these that one host may hold while it does not answer quickly. As many more are there for "
        "transfers of more than two seconds, so that these hold up no others.",
        low=0.01,
        high=1,
    )
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
    fsync_threads: int = key(2, "Threads that make files durable.", low=1, high=64)


@dataclass(frozen=True, slots=True)
class Upload:
    """Bringing files to the store."""

    url: str = key(
        "file:///var/lib/pipelined/files",
        "Where files go: file:///folder, abfss://workspace@onelake.dfs.fabric.microsoft.com/item/Files/…, "
        "az://, s3:// or any URL of obstore.",
    )
    concurrency: int = key(
        8,
        "Uploads at once, for each upload process; beside them half as many of files of more than 8 MiB, "
        "so that small ones do not wait for these.",
        low=1,
        high=256,
    )
    timeout_s: float = key(60.0, "Time for one request to the store.", unit="seconds", low=1, high=3600)
    auth: Auth = section(
        Auth, "How to log in to OneLake or Azure Storage; other stores find their keys in the environment."
    )


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
        25, "Reopen a table after so many commits: a handle slows down.", low=1, high=10000
    )
    reopen_seconds: float = key(900.0, "Reopen a table after so long: tokens expire.", unit="seconds", low=1)
    checkpoint_commits: int = key(
        25, "A checkpoint of the table's log every so many commits.", low=1, high=10000
    )
    log_retention_hours: float = key(
        48.0, "How long the table's log keeps old versions.", unit="hours", low=0.01
    )
    log_commits: int = key(
        20,
        "On a local disk, commits older than the last so many are kept as hourly checkpoints only: each "
        "commit lists the log. 0: all are kept until log_retention_hours.",
        low=0,
    )
    small_files: int = key(
        100,
        "On a local disk: a day with so many small files is compacted at once, even today's.",
        unit="files",
        low=2,
    )
    tend_seconds: float = key(
        30.0,
        "How often the worker table-maintenance looks for such days and such logs.",
        unit="seconds",
        low=0.1,
        high=86400,
    )
    maintenance_hours: float = key(
        24.0,
        "How often it compacts all days that are over, vacuums and checkpoints; 0: never.",
        unit="hours",
        low=0,
    )
    vacuum_hours: float = key(
        48.0,
        "Vacuum leaves alone what was removed or written less than this ago.",
        unit="hours",
        low=24,
    )
    known_keys: int = key(
        2000000, "Attachment keys kept in memory to tell new rows from replacements.", unit="keys", low=1000
    )
    auth: Auth = section(
        Auth, "How to log in to OneLake or Azure Storage; other stores find their keys in the environment."
    )


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

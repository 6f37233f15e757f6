"""The sections of the Kafka cluster and its topics."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from pipelined.config.keys import SECRET_HELP, key, section

__all__ = [
    "Kafka",
    "Topic",
    "Topics",
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
        "restarted within it gets its own partitions back at once. A worker that hands partitions over "
        "finishes what is in hand within a third of it.",
        unit="seconds",
        low=1,
        high=300,
    )
    transaction_timeout_s: float = key(
        20.0,
        "How long a transaction may stay open before the broker ends it; readers see nothing behind one "
        "that hangs. At most two thirds of session_timeout_s, less than the hang_s of every worker.",
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

    @property
    def revoke_budget_s(self) -> float:
        """How long a worker that hands partitions over may finish what is in hand, before it commits.

        It and the one transaction that follows fit in the session timeout, so that no partition stands
        still for longer than that.
        """
        return self.session_timeout_s / 3


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
        "Valid events, each once. As many partitions as events_raw; kept longer than the horizon.",
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

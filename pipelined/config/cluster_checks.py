"""What must hold of the cluster's and the topics' sections beyond the limits of each key alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from pipelined.config.cluster import Topic
from pipelined.config.problems import Problem, is_address, relative
from pipelined.config.tree import WITHOUT_KAFKA, WORKER_TYPES, Config

__all__ = ["cluster", "names", "topics"]

_NAME = re.compile(r"[A-Za-z0-9_-]{1,100}")
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,200}")
_HOST_ID = re.compile(r"[A-Za-z0-9._-]{0,200}")


def names(config: Config) -> Iterator[Problem]:
    """The domain, this host's name, and the names of the topics."""
    if not _NAME.fullmatch(config.domain):
        yield Problem(
            ("domain",),
            f'domain: "{config.domain}" is not allowed: expected 1 to 100 letters, digits, - and _',
        )
    if not _HOST_ID.fullmatch(config.kafka.host):
        yield Problem(
            ("kafka.host",),
            f'kafka.host: "{config.kafka.host}" is not allowed: expected letters, digits, ., - and _',
        )
    taken: dict[str, str] = {}
    for name, topic in _topics(config):
        key = f"topics.{name}.name"
        full = topic.name or f"{config.domain}.{name.replace('_', '.', 1)}"
        if topic.name and (not _TOPIC.fullmatch(topic.name) or topic.name in (".", "..")):
            yield Problem(
                (key,), f'{key}: "{topic.name}" is no topic name: expected letters, digits, ., - and _'
            )
        # Kafka takes . and _ for the same in its metrics, and refuses names that differ only there.
        if (other := taken.setdefault(full.replace(".", "_"), key)) != key:
            yield Problem((key, other), f'{key}: "{full}" is also the name of {other}')


def _topics(config: Config) -> Iterator[tuple[str, Topic]]:
    for name in config.topics.__slots__:
        topic = getattr(config.topics, name)
        if isinstance(topic, Topic):
            yield name, topic


def topics(config: Config) -> Iterator[Problem]:
    """What the topics keep, for how long, and in how many copies and partitions."""
    declared = config.topics
    if declared.min_insync_replicas > declared.replication_factor:
        yield Problem(
            ("topics.min_insync_replicas", "topics.replication_factor"),
            f"topics.min_insync_replicas: {declared.min_insync_replicas} copies can never be there with a "
            f"replication_factor of {declared.replication_factor}",
        )
    if declared.events_raw.partitions != declared.events_ingested.partitions:
        yield Problem(
            ("topics.events_ingested.partitions", "topics.events_raw.partitions"),
            f"topics.events_ingested.partitions: {declared.events_ingested.partitions} must equal "
            f"topics.events_raw.partitions, {declared.events_raw.partitions}: "
            "deduplication goes by partition",
        )
    for name, topic in _topics(config):
        key = f"topics.{name}"
        if -1 < topic.retention_hours <= 0:
            yield Problem(
                (f"{key}.retention_hours",),
                f"{key}.retention_hours: {topic.retention_hours:g} is not allowed: expected more than 0, "
                "or -1 for ever",
            )
        if topic.compacted and name != "checkpoints":
            yield Problem(
                (f"{key}.compacted",),
                f"{key}.compacted: true would lose records: several records of this topic share a key",
            )
    if not declared.checkpoints.compacted and declared.checkpoints.retention_hours >= 0:
        yield Problem(
            ("topics.checkpoints.compacted", "topics.checkpoints.retention_hours"),
            "topics.checkpoints.compacted: false would forget the sources' positions after "
            f"{declared.checkpoints.retention_hours:g} hours: set it to true, or retention_hours to -1",
        )
    yield from _kept_long_enough(
        config,
        "events_ingested",
        config.ingest.dedup_horizon_hours,
        "ingest.dedup_horizon_hours",
        "duplicates are recognised by what this topic keeps",
    )
    longest = max(config.retry.delays_s, default=0.0) * (1 + config.retry.jitter) / 3600
    yield from _kept_long_enough(
        config, "downloads_retry", longest, "retry.delays_s", "a record would be deleted before it is due"
    )


def _kept_long_enough(config: Config, name: str, hours: float, other: str, why: str) -> Iterator[Problem]:
    kept = getattr(config.topics, name).retention_hours
    if 0 < kept < hours:
        key = f"topics.{name}.retention_hours"
        yield Problem((key, other), f"{key}: {kept:g} is shorter than {other} ({hours:g} hours): {why}")


def _timeouts(config: Config) -> Iterator[Problem]:
    """A partition may stand still for one session timeout, whatever happens to its owner."""
    kafka = config.kafka
    most = kafka.session_timeout_s - kafka.revoke_budget_s
    if kafka.transaction_timeout_s > most + 1e-6:
        yield Problem(
            ("kafka.transaction_timeout_s", "kafka.session_timeout_s"),
            f"kafka.transaction_timeout_s: {kafka.transaction_timeout_s:g} is more than two thirds of "
            f"session_timeout_s, {kafka.session_timeout_s:g}: who hands a partition over drains it for the "
            f"other third and then commits, and a dead one's transaction is in its successor's way; "
            f"at most {most:g}",
        )
    for worker_type in WORKER_TYPES:
        hang = config.worker(worker_type).hang_s
        if worker_type not in WITHOUT_KAFKA and hang <= kafka.transaction_timeout_s:
            key = f"workers.{worker_type.replace('-', '_')}.hang_s"
            yield Problem(
                (key, "kafka.transaction_timeout_s"),
                f"{key}: {hang:g} must be more than kafka.transaction_timeout_s, "
                f"{kafka.transaction_timeout_s:g}: who waits for its commit would be killed as hung",
            )


def cluster(config: Config) -> Iterator[Problem]:
    """Where the cluster is, how we log in, and the limits of its clients."""
    kafka = config.kafka
    for address in kafka.bootstrap.split(","):
        if not is_address(address.strip()):
            yield Problem(
                ("kafka.bootstrap",),
                f'kafka.bootstrap: "{address.strip()}" is not allowed: expected host:port, with commas',
            )
    if kafka.security_protocol.startswith("SASL_"):
        for name in ("sasl_username", "sasl_password"):
            if not getattr(kafka, name):
                yield Problem(
                    (f"kafka.{name}", "kafka.security_protocol"),
                    f"kafka.{name} is needed with security_protocol {kafka.security_protocol}",
                )
    if kafka.ca_file and not PurePosixPath(kafka.ca_file).is_absolute():
        yield relative("kafka.ca_file", kafka.ca_file)
    yield from _timeouts(config)
    if kafka.fetch_queue_kbytes * 1024 < kafka.max_message_bytes:
        yield Problem(
            ("kafka.fetch_queue_kbytes", "kafka.max_message_bytes"),
            f"kafka.fetch_queue_kbytes: {kafka.fetch_queue_kbytes} kB hold no message of max_message_bytes, "
            f"{kafka.max_message_bytes}",
        )

"""What every Kafka client of ours is configured with, and the names of topics and groups.

The values that are not in the configuration were measured on the real broker; each says why.
"""

from __future__ import annotations

import logging
import platform
import re
from typing import Any

from pipelined.config import Config
from pipelined.config.secrets import resolve
from pipelined.config.tree import WORKER_TYPES, Topic

__all__ = [
    "GROWTH_SEEN_MS",
    "HEADER_ROOM",
    "Names",
    "Settings",
    "admin_settings",
    "consumer_settings",
    "host_name",
    "hub_consumer_settings",
    "hub_settings",
    "producer_settings",
]

#: Partitions that were added to a topic are found by its group within this time.
GROWTH_SEEN_MS = 10_000
#: Room for the reason headers that a dead letter carries beside the original bytes.
HEADER_ROOM = 65536
#: What the Event Hub's consumer fetches ahead, at most.
HUB_QUEUE_KBYTES = 2048
#: What the supervisor gives a hung worker to write its stacks, and some more.
_ABORT_S = 10.0
#: librdkafka takes no more than a day.
_MOST_PATIENCE_S = 86_400.0

Settings = dict[str, Any]

#: What the client library itself tells.
_logger = logging.getLogger("pipelined.kafka.client")


def _is_news(record: logging.LogRecord) -> bool:
    """Not while a coordinator loads, as it does on a new cluster: it is asked again by itself."""
    line = record.getMessage()
    return not (line.startswith("GETPID") and line.endswith("retrying"))


_logger.addFilter(_is_news)


def host_name(config: Config) -> str:
    """The name of this host in member and transactional ids."""
    return config.kafka.host or re.sub(r"[^A-Za-z0-9._-]", "-", platform.node()) or "localhost"


class Names:
    """The names of topics and groups, from the configuration."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def section(self, stream: str) -> Topic:
        """The configuration of a stream's topic."""
        topic = getattr(self._config.topics, stream)
        assert isinstance(topic, Topic)
        return topic

    def topic(self, stream: str, tier: int = 0) -> str:
        """The topic of a stream; of the retry stream, that of one tier."""
        base = self.section(stream).name or f"{self._config.domain}.{stream.replace('_', '.')}"
        if stream == "downloads_retry":
            return f"{base}.{_delay(self._config.retry.delays_s[tier])}"
        return base

    def topics(self, stream: str) -> list[str]:
        """All topics of a stream: several for the retry stream, one for any other."""
        if stream == "downloads_retry":
            return [self.topic(stream, tier) for tier in range(len(self._config.retry.delays_s))]
        return [self.topic(stream)]

    def group(self, worker_type: str) -> str:
        """The consumer group of a worker type."""
        return f"{self._config.domain}.{worker_type}"

    def election(self, worker_type: str) -> str:
        """The group in which the hosts elect the one whose worker of this type works."""
        return f"{self.group(worker_type)}.leader"

    def instance(self, worker_type: str, index: int) -> str:
        """The static member id and transactional id of one worker process."""
        return f"{self._config.domain}.{host_name(self._config)}.{worker_type}.{index}"


def _delay(seconds: float) -> str:
    """A delay as it stands in a topic's name: 5m, 90s, 1500ms."""
    milliseconds = round(seconds * 1000)
    for unit, size in (("h", 3_600_000), ("m", 60_000), ("s", 1000)):
        if milliseconds % size == 0 and milliseconds >= size:
            return f"{milliseconds // size}{unit}"
    return f"{milliseconds}ms"


def _client(config: Config) -> Settings:
    """What every client has, whatever cluster it is for."""
    return {
        "client.id": f"pipelined-{host_name(config)}",
        "socket.keepalive.enable": True,
        "socket.nagle.disable": True,
        "log_level": 4,
        "logger": _logger,
        # The default forgets every broker once none is up, and with them those that calls wait for: a
        # transaction under way when the only broker restarts then never ends (librdkafka 5456, 5511), and a
        # refused connection is logged forty times a second. The first addresses are asked again without it.
        "metadata.recovery.strategy": "none",
        # A broker that comes back is found within seconds, not after the default 10.
        "reconnect.backoff.ms": 50,
        "reconnect.backoff.max.ms": 2000,
        # Right after a commit the coordinator answers CONCURRENT_TRANSACTIONS, and the default back-off
        # of 100 ms would be waited each time.
        "retry.backoff.ms": 1,
        "retry.backoff.max.ms": 10,
    }


def _connection(config: Config) -> Settings:
    kafka = config.kafka
    settings = _client(config) | {
        "bootstrap.servers": kafka.bootstrap,
        "security.protocol": kafka.security_protocol,
    }
    if kafka.ca_file:
        settings["ssl.ca.location"] = kafka.ca_file
    if kafka.security_protocol.startswith("SASL"):
        settings["sasl.mechanisms"] = kafka.sasl_mechanism
        settings["sasl.username"] = kafka.sasl_username
        settings["sasl.password"] = resolve(kafka.sasl_password)
    return settings


def admin_settings(config: Config) -> Settings:
    """For an AdminClient."""
    return _connection(config)


def consumer_settings(config: Config, group: str, instance: str | None) -> Settings:
    """For a consumer of committed records; with ``instance`` a static member of ``group``."""
    settings = _connection(config) | _reading(config, group)
    if instance is not None:
        settings |= {
            "group.instance.id": instance,
            "partition.assignment.strategy": "cooperative-sticky",
            "session.timeout.ms": round(config.kafka.session_timeout_s * 1000),
            "max.poll.interval.ms": _patience_ms(config),
            # With the default of 3000 a member that joins late waits seconds for its share.
            "heartbeat.interval.ms": 1000 if config.kafka.session_timeout_s >= 3 else 300,
        }
    return settings


def _reading(config: Config, group: str) -> Settings:
    """How committed records are read, by offsets that we keep."""
    return {
        "group.id": group,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        # Every reader of ours says where it begins. Being taken elsewhere would be a gap that nobody sees.
        "auto.offset.reset": "error",
        "isolation.level": "read_committed",
        # A group's coordinator that is away is looked for after a tenth of this; the default is ten minutes,
        # and a member would not notice before its session is over.
        "coordinator.query.interval.ms": 5_000,
        # The default is five minutes.
        "topic.metadata.refresh.interval.ms": GROWTH_SEEN_MS,
        "queued.max.messages.kbytes": config.kafka.fetch_queue_kbytes,
        "fetch.message.max.bytes": 4 << 20,
        "fetch.max.bytes": max(16 << 20, config.kafka.max_message_bytes + HEADER_ROOM),
        "receive.message.max.bytes": max(100_000_000, config.kafka.max_message_bytes * 2),
        # At its default of 1000 a full queue costs a factor of three in throughput.
        "fetch.queue.backoff.ms": 10,
        "fetch.wait.max.ms": 500,
        # The end of a partition is told: its last offsets may be transaction markers, which no record shows.
        "enable.partition.eof": True,
    }


def _patience_ms(config: Config) -> int:
    """How long the group waits for a member whose heartbeats come while its loop stands still.

    Longer than any supervisor waits: a worker that hangs is killed, and its successor has its partitions
    back at once. A member put out of the group before that would have its work thrown away instead.
    """
    workers = [config.worker(worker_type) for worker_type in WORKER_TYPES]
    supervisor = max(max(worker.hang_s, worker.start_s) for worker in workers) + _ABORT_S
    return round(1000 * min(max(supervisor, config.kafka.session_timeout_s), _MOST_PATIENCE_S))


def patience_with_commits_s(config: Config) -> float:
    """How long a call of the transaction API is made again and again before its client is given up, at most.

    When a broker dies, librdkafka at times goes on asking the dead one, while a new client finds the new
    coordinator at once. Brokers put another one in the dead one's place within about 5 s; what takes longer
    for that reason never ends. Nothing is lost by giving up: the coordinator completes what it has heard of,
    and aborts the rest.
    """
    return max(8.0, 0.4 * config.kafka.transaction_timeout_s)


def producer_settings(config: Config, transactional_id: str) -> Settings:
    """For a transactional producer."""
    return _connection(config) | {
        "transactional.id": transactional_id,
        "transaction.timeout.ms": round(config.kafka.transaction_timeout_s * 1000),
        "enable.idempotence": True,
        "compression.type": config.kafka.compression,
        "message.max.bytes": config.kafka.max_message_bytes + 2 * HEADER_ROOM,
        "partitioner": "murmur2_random",
        # A transaction's commit flushes; waiting for more messages would only add to its time.
        "linger.ms": 0,
        "batch.num.messages": 10000,
        "queue.buffering.max.messages": 1_000_000,
        "queue.buffering.max.kbytes": 1 << 20,
    }


def hub_settings(config: Config, login: Settings) -> Settings:
    """For a client of the Event Hub, a cluster that is not ours; ``login`` is how to log in there.

    What differs from our own cluster is what Microsoft recommends for clients of Event Hubs, or what a
    service far away asks for.
    """
    hub = config.eventhub
    settings = _client(config) | {
        "bootstrap.servers": hub.bootstrap,
        "security.protocol": hub.security_protocol,
        # A connection that rests for four minutes is dropped on the way, without a word to either side.
        "connections.max.idle.ms": 180_000,
        "metadata.max.age.ms": 180_000,
        # It answers late when it throttles, and takes 60 s for the least that a client should wait.
        "socket.timeout.ms": 60_000,
        # Its own gateway, and many clients: gentler than with brokers of ours.
        "reconnect.backoff.ms": 200,
        "reconnect.backoff.max.ms": 5_000,
        "retry.backoff.ms": 100,
        "retry.backoff.max.ms": 1_000,
        # Metrics of ours are none of its business, and it has no use for them.
        "enable.metrics.push": False,
    }
    if hub.ca_file:
        settings["ssl.ca.location"] = hub.ca_file
    return settings | login


def hub_consumer_settings(config: Config, login: Settings) -> Settings:
    """For the consumer of the Event Hub: no member of its group, which is told how far it is."""
    return (
        hub_settings(config, login)
        | _reading(config, config.eventhub.group)
        | {
            "topic.metadata.refresh.interval.ms": 30_000,
            # Nobody's member: a pause of any length is no reason to lose anything. The session's timeout is
            # how long a client that goes away waits for a group that does not answer.
            "max.poll.interval.ms": round(_MOST_PATIENCE_S * 1000),
            "session.timeout.ms": 1_000,
            "heartbeat.interval.ms": 300,
            # Two pages, what is fetched ahead and unpacked, and what is being sent make up the memory of a
            # reader. A message that is larger comes all the same, alone.
            "queued.max.messages.kbytes": min(HUB_QUEUE_KBYTES, config.kafka.fetch_queue_kbytes),
            "fetch.message.max.bytes": 128 << 10,
            "fetch.max.bytes": 1 << 20,
        }
    )

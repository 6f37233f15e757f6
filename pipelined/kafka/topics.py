"""The topics as declared, held against the topics as they are: plan, apply, check.

Nothing in the pipeline makes a topic by using it. ``plan`` tells the difference, ``apply`` removes what
can be removed without losing anything, and ``check`` is what the daemon does at its start.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    ResourceType,
)

from pipelined.config import Config
from pipelined.errors import ConfigError, UnavailableError
from pipelined.kafka.answers import answered
from pipelined.kafka.growth import grow
from pipelined.kafka.layout import difference, read_layout
from pipelined.kafka.settings import HEADER_ROOM, Names, admin_settings

__all__ = ["STREAMS", "Change", "Declared", "apply", "check", "declared", "plan"]

#: Every stream, in the order of the flow.
STREAMS: tuple[str, ...] = (
    "events_raw",
    "events_ingested",
    "events_dlq",
    "downloads_pending",
    "downloads_cached",
    "downloads_results",
    "downloads_retry",
    "downloads_dlq",
    "checkpoints",
)
_TIMEOUT = 15.0
_COMPACTED_SEGMENT = 16 << 20


@dataclass(frozen=True, slots=True)
class Declared:
    """One topic as the configuration wants it; ``settings`` are the broker's names and texts."""

    name: str
    partitions: int
    replication: int
    settings: dict[str, str]


@dataclass(frozen=True, slots=True)
class Change:
    """One difference: what is done about it, or, where ``refused`` is set, why nothing can be.

    ``layout`` marks what changes the partition of a trace id: done with the ingesters stopped.
    """

    topic: str
    what: str
    refused: str = ""
    create: bool = False
    partitions: int = 0
    layout: bool = False
    settings: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.topic}: {self.what}" + (
            f" - cannot be applied: {self.refused}" if self.refused else ""
        )


def declared(config: Config) -> list[Declared]:
    """Every topic that the configuration declares."""
    names = Names(config)
    topics = []
    for stream in STREAMS:
        section = names.section(stream)
        room = 0 if stream == "events_raw" else HEADER_ROOM
        settings = {
            "cleanup.policy": "compact" if section.compacted else "delete",
            "retention.ms": str(
                -1 if section.retention_hours < 0 else round(section.retention_hours * 3_600_000)
            ),
            "max.message.bytes": str(config.kafka.max_message_bytes + room),
            "min.insync.replicas": str(config.topics.min_insync_replicas),
        }
        if section.compacted:
            # What is newer than the last closed segment is never compacted, and read whole at a start.
            settings["segment.bytes"] = str(_COMPACTED_SEGMENT)
        if stream == "events_ingested":
            # The memory for duplicates is as long as this topic reaches back, by the arrivals of events.
            settings |= {"retention.bytes": "-1", "message.timestamp.type": "CreateTime"}
        for name in names.topics(stream):
            topics.append(Declared(name, section.partitions, config.topics.replication_factor, settings))
    return topics


def plan(config: Config, *, timeout: float = _TIMEOUT) -> list[Change]:
    """The differences between the declared topics and the cluster's; empty where they agree.

    Raises UnavailableError when the cluster does not answer.
    """
    admin = AdminClient(admin_settings(config))
    wanted = declared(config)
    try:
        present = admin.list_topics(timeout=timeout).topics
        found = [topic for topic in wanted if topic.name in present]
        settings = _settings(admin, [topic.name for topic in found])
    except KafkaException as error:
        raise _unreachable(config, error) from error
    names = Names(config)
    remembered = {names.topic("events_raw"), names.topic("events_ingested")}
    changes = []
    for topic in wanted:
        if topic not in found:
            what = f"create with {topic.partitions} partitions, {topic.replication} copies"
            changes.append(Change(topic.name, what, create=True))
            continue
        partitions = len(present[topic.name].partitions)
        changes += _differences(topic, partitions, settings[topic.name], topic.name in remembered)
    raw = names.topic("events_raw")
    if raw in present and not any(change.layout for change in changes):
        partitions = len(present[raw].partitions)
        layout = read_layout(config) if names.topic("checkpoints") in present else None
        if wrong := difference(layout, partitions, partitions):
            what = f"record that duplicates are judged with {partitions} partitions: {wrong}"
            changes.append(Change(raw, what, layout=True))
    return changes


def _differences(
    topic: Declared, partitions: int, settings: dict[str, str], remembered: bool
) -> list[Change]:
    changes = []
    if partitions < topic.partitions:
        what = f"grow from {partitions} to {topic.partitions} partitions"
        changes.append(Change(topic.name, what, partitions=topic.partitions, layout=remembered))
    elif partitions > topic.partitions:
        what = f"has {partitions} partitions, declared are {topic.partitions}"
        changes.append(Change(topic.name, what, refused="Kafka never shrinks a topic; declare what it has"))
    wrong = {name: value for name, value in topic.settings.items() if settings.get(name) != value}
    if wrong:
        told = ", ".join(f"{name} {settings.get(name)} → {value}" for name, value in wrong.items())
        changes.append(Change(topic.name, f"set {told}", settings=wrong))
    return changes


def _settings(admin: AdminClient, names: Sequence[str]) -> dict[str, dict[str, str]]:
    if not names:
        return {}
    resources = [ConfigResource(ResourceType.TOPIC, name) for name in names]
    answers = admin.describe_configs(resources, request_timeout=_TIMEOUT)
    return {
        resource.name: {entry.name: entry.value for entry in answered(answer, _TIMEOUT + 5).values()}
        for resource, answer in answers.items()
    }


def apply(config: Config, changes: Sequence[Change]) -> None:
    """Carry out what can be carried out; raises ConfigError naming what cannot, after the rest is done.

    What changes the partition of a trace id needs the ingesters stopped.
    """
    admin = AdminClient(admin_settings(config))
    names, present = Names(config), set[str]()
    by_name = {topic.name: topic for topic in declared(config)}
    creations = [
        NewTopic(
            change.topic,
            num_partitions=by_name[change.topic].partitions,
            replication_factor=by_name[change.topic].replication,
            config=by_name[change.topic].settings,
        )
        for change in changes
        if change.create
    ]
    futures = dict(admin.create_topics(creations, operation_timeout=_TIMEOUT)) if creations else {}
    growths = [
        NewPartitions(change.topic, change.partitions)
        for change in changes
        if change.partitions and not change.layout
    ]
    if growths:
        futures |= {f"{k} ": v for k, v in admin.create_partitions(growths).items()}
    resources = [
        ConfigResource(
            ResourceType.TOPIC,
            change.topic,
            incremental_configs=[
                ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
                for name, value in change.settings.items()
            ],
        )
        for change in changes
        if change.settings
    ]
    if resources:
        answers = admin.incremental_alter_configs(resources)
        futures |= {f"{resource.name}  ": answer for resource, answer in answers.items()}
    problems = [str(change) for change in changes if change.refused]
    for name, future in futures.items():
        try:
            answered(future, _TIMEOUT + 5)
        except KafkaException as error:
            known = error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS
            present |= {name} if known else set()
            if not known:
                problems.append(f"{name.strip()}: {error.args[0].str()}")
    raw, ingested = names.topic("events_raw"), names.topic("events_ingested")
    made = {change.topic for change in changes if change.create} - present
    if not problems and (made & {raw, ingested} or any(change.layout for change in changes)):
        try:
            grow(config, empty=ingested in made)
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)


def check(config: Config, *, timeout: float = _TIMEOUT) -> None:
    """Raise ConfigError, naming each difference and the command that mends it, unless the topics fit."""
    changes = plan(config, timeout=timeout)
    if changes:
        raise ConfigError(
            [f"topic {change}" for change in changes] + ["run `pipelinectl topics apply` to mend what can be"]
        )


def _unreachable(config: Config, error: KafkaException) -> UnavailableError:
    return UnavailableError(
        f"Kafka at {config.kafka.bootstrap} does not answer: {error.args[0].str()}; "
        "check kafka.bootstrap and that the brokers are up"
    )

"""Growing ``events.raw`` and ``events.ingested``: together, with the ingesters stopped, and on record.

Nobody else has to stop. What lay on ``events.raw`` before, or comes from a producer that has not heard of
the new partitions, the ingesters put where it belongs (``stages.relocate``); what was admitted before they
read back from all partitions until the horizon is over (``kafka.history``).
"""

from __future__ import annotations

import time

from confluent_kafka import Consumer, KafkaException
from confluent_kafka.admin import AdminClient, NewPartitions

from pipelined.config import Config
from pipelined.errors import ConfigError, UnavailableError
from pipelined.kafka.answers import answered
from pipelined.kafka.groups import members
from pipelined.kafka.history import newest_arrivals, whole_spans
from pipelined.kafka.layout import Layout, write_layout
from pipelined.kafka.settings import Names, admin_settings, consumer_settings

__all__ = ["grow"]

_TIMEOUT = 15.0
_INGESTER = "event-ingester"


def grow(config: Config, *, empty: bool = False) -> None:
    """Give the event topics as many partitions as they are declared with, and record what was admitted.

    ``empty`` says that ``events.ingested`` was only just made. Raises ConfigError, with nothing changed,
    while an ingester runs anywhere; applied again after any failure it ends what was begun.
    """
    names = Names(config)
    raw, ingested = names.topic("events_raw"), names.topic("events_ingested")
    _need_quiet(config, raw)
    admin = AdminClient(admin_settings(config))
    try:
        ends, newest = ([], []) if empty else _admitted(config, _count(admin, ingested))
        for topic, section in ((ingested, "events_ingested"), (raw, "events_raw")):
            _grow(admin, topic, names.section(section).partitions)
        partitions = _count(admin, raw)
        _need_quiet(config, raw)
        if ends != [high for _, high in whole_spans(config, range(len(ends))).values()]:
            raise ConfigError(f"{raw}: an event-ingester was at work meanwhile; {_STOP}")
    except KafkaException as error:
        msg = f"{raw} could not be grown: {error.args[0].str()}; run the command again"
        raise UnavailableError(msg) from error
    admitted = any(ends)
    write_layout(
        config,
        Layout(
            partitions,
            ingested,
            round(time.time() * 1000),
            ends if admitted else [],
            newest if admitted else [],
        ),
    )


_STOP = (
    "stop it on every host (`pipelinectl stop event-ingester`; `pipelinectl members --remove HOST` for one "
    "that is gone for good), run `pipelinectl topics apply` again, and start it again (`pipelinectl start "
    "event-ingester`)"
)


def _need_quiet(config: Config, raw: str) -> None:
    """An ingester that runs would go on judging by the old partitions."""
    running = members(config, [_INGESTER])
    if running:
        hosts = ", ".join(sorted({member.host or member.address for member in running}))
        raise ConfigError(f"{raw}: the event-ingester is at work on {hosts}; {_STOP}")


def _admitted(config: Config, partitions: int) -> tuple[list[int], list[int]]:
    """The end of each partition of ``events.ingested``, and the newest arrival in it."""
    spans = whole_spans(config, range(partitions))
    settings = consumer_settings(config, f"{config.domain}.read-back", None)
    consumer = Consumer(settings | {"fetch.wait.max.ms": 10})
    try:
        wait = config.kafka.transaction_timeout_s + _TIMEOUT
        topic = Names(config).topic("events_ingested")
        newest = newest_arrivals(consumer, topic, spans, wait, lambda: None)
    finally:
        consumer.close()
    return [high for _, high in spans.values()], [*newest.values()]


def _grow(admin: AdminClient, topic: str, wanted: int) -> None:
    """Make it so many partitions, or leave it with more, and wait until the brokers know."""
    deadline = time.monotonic() + _TIMEOUT
    asked = False
    while (found := _count(admin, topic)) < wanted:
        if found and not asked:  # one that was made just now may not be known yet
            answered(admin.create_partitions([NewPartitions(topic, wanted)])[topic], _TIMEOUT)
            asked = True
        if time.monotonic() > deadline:
            msg = f"{topic} has not grown to {wanted} partitions in {_TIMEOUT:g} s; run the command again"
            raise UnavailableError(msg)
        time.sleep(0.05)


def _count(admin: AdminClient, topic: str) -> int:
    return len(admin.list_topics(topic, timeout=_TIMEOUT).topics[topic].partitions)

"""What the brokers allow, held against the configuration: a member they refuse would wait for ever."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType

from pipelined.config import Config
from pipelined.errors import ConfigError
from pipelined.kafka.answers import answered
from pipelined.kafka.settings import admin_settings

__all__ = ["check", "problems"]

_logger = logging.getLogger("pipelined.kafka")


def check(config: Config, *, timeout: float = 5.0) -> None:
    """Raise ConfigError for a timeout that the brokers refuse.

    Brokers that do not tell their settings (a managed cluster, a user without the right) are believed to
    allow it: what they refuse shows later, in the workers' log.
    """
    admin = AdminClient(admin_settings(config))
    try:
        broker = min(admin.list_topics(timeout=timeout).brokers)
        resource = ConfigResource(ResourceType.BROKER, str(broker))
        (answer,) = admin.describe_configs([resource], request_timeout=timeout).values()
        settings = {entry.name: entry.value for entry in answered(answer, timeout + 5).values()}
    except (KafkaException, ValueError, TimeoutError) as error:
        _logger.debug("the brokers do not tell their limits: %s", error)
        return
    if found := list(problems(config, settings)):
        raise ConfigError(found)


def problems(config: Config, settings: Mapping[str, str | None]) -> Iterator[str]:
    """What a broker with these settings would refuse."""
    kafka = config.kafka
    for key, seconds, low, high in (
        (
            "kafka.session_timeout_s",
            kafka.session_timeout_s,
            "group.min.session.timeout.ms",
            "group.max.session.timeout.ms",
        ),
        ("kafka.transaction_timeout_s", kafka.transaction_timeout_s, "", "transaction.max.timeout.ms"),
    ):
        least, most = (float(settings.get(name) or bound) / 1000 for name, bound in ((low, 0), (high, "inf")))
        if not least <= seconds <= most:
            name, bound = (low, least) if seconds < least else (high, most)
            yield (
                f"{key}: {seconds:g} is refused by the brokers, whose {name} is {bound * 1000:.0f}: "
                f"set it to {bound:g}, or change the brokers"
            )

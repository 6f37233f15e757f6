"""Leaving a group for good: what a static member does not do by going away.

A static member's partitions rest until its session times out, so that a worker that is restarted gets
them back at once. One that does not come back is taken out of the group here, and the others have its
partitions with their next heartbeat. confluent-kafka has no call for it; kafka-python has.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from typing import Any

from pipelined.config import Config
from pipelined.config.secrets import resolve
from pipelined.errors import UnavailableError
from pipelined.kafka.groups import members
from pipelined.kafka.settings import host_name

__all__ = ["connection", "leave", "leave_surplus"]

_logger = logging.getLogger("pipelined.kafka")

#: The coordinator may be moving, or loading the group: asked again after so long.
_AGAIN_S = 0.1


def leave(config: Config, group: str, instances: Iterable[str], *, timeout: float = 2.0) -> list[str]:
    """Take static members out of a group; returns those that were in it.

    A member that still runs is told that it is unknown, and what it had in hand is refused; then it joins
    again. ``timeout`` is in seconds, for all of it. Raises UnavailableError where the brokers do not
    answer in time, or refuse it.
    """
    # Heavy, and needed here only.
    from kafka.admin import KafkaAdminClient, MemberToRemove
    from kafka.errors import KafkaError, UnknownMemberIdError

    # Its debug lines show the password.
    logging.getLogger("kafka").setLevel(logging.ERROR)
    asked = [MemberToRemove(group_instance_id=instance) for instance in instances]
    deadline = time.monotonic() + timeout
    while True:
        try:
            with KafkaAdminClient(**connection(config, max(0.1, deadline - time.monotonic()))) as admin:
                answers = admin.remove_group_members(group, asked)
                break
        except KafkaError as error:
            if not error.retriable or time.monotonic() + _AGAIN_S > deadline:
                msg = (
                    f"the group {group} could not be left: {error}; the partitions "
                    f"move to others when the session times out, in {config.kafka.session_timeout_s:g} s"
                )
                raise UnavailableError(msg) from error
            time.sleep(_AGAIN_S)
    gone = []
    for member in asked:
        answer = answers.get(member.group_instance_id, UnknownMemberIdError)
        if answer.errno == 0:
            gone.append(member.group_instance_id)
    return gone


def leave_surplus(config: Config, worker_types: Iterable[str], *, timeout: float = 3.0) -> list[str]:
    """Take out what a daemon of this host with more processes of these types left; returns who that was.

    Before the workers start. Raises UnavailableError where the brokers do not answer in time.
    """
    host = host_name(config)
    left: list[str] = []
    for member in members(config, worker_types, timeout=timeout):
        if member.host == host and member.index >= config.worker(member.worker_type).processes:
            left += leave(config, member.group, [member.instance], timeout=timeout)
    if left:
        _logger.info("fewer processes than before: left the groups as %s", ", ".join(left))
    return left


def connection(config: Config, timeout: float) -> dict[str, Any]:
    """kafka-python's settings for the cluster of this configuration; ``timeout`` in seconds."""
    kafka = config.kafka
    settings: dict[str, Any] = {
        "bootstrap_servers": [address.strip() for address in kafka.bootstrap.split(",")],
        "client_id": f"pipelined-{host_name(config)}",
        "security_protocol": kafka.security_protocol,
        "bootstrap_timeout_ms": round(timeout * 1000),
        "request_timeout_ms": round(timeout * 1000),
        "reconnect_backoff_max_ms": 200,
    }
    if kafka.ca_file:
        settings["ssl_cafile"] = kafka.ca_file
    if kafka.security_protocol.startswith("SASL"):
        settings["sasl_mechanism"] = kafka.sasl_mechanism
        settings["sasl_plain_username"] = kafka.sasl_username
        settings["sasl_plain_password"] = resolve(kafka.sasl_password)
    return settings

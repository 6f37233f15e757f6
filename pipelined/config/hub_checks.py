"""What must hold of the Event Hub's section beyond the limits of each key alone."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from pipelined.config.problems import Problem, is_address, relative
from pipelined.config.tree import Config
from pipelined.config.trust import is_loopback, may_carry_token

__all__ = ["hub", "hub_here"]

#: Where Event Hubs live, in each of Microsoft's clouds.
_HOSTS = ("servicebus.windows.net", "servicebus.usgovcloudapi.net", "servicebus.chinacloudapi.cn")
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,256}")


def hub(config: Config) -> Iterator[Problem]:
    """Where it is, and that the login goes nowhere else; nothing where no Event Hub is configured."""
    given = config.eventhub
    if not given.bootstrap:
        return
    addresses = [address.strip() for address in given.bootstrap.split(",")]
    for address in addresses:
        if not is_address(address):
            yield Problem(
                ("eventhub.bootstrap",),
                f'eventhub.bootstrap: "{address}" is not allowed: expected host:port '
                "(NAMESPACE.servicebus.windows.net:9093)",
            )
    if given.topic and not _TOPIC.fullmatch(given.topic):
        yield Problem(
            ("eventhub.topic",),
            f'eventhub.topic: "{given.topic}" is no Event Hub\'s name: expected letters, digits, ., - and _',
        )
    if not given.group:
        yield Problem(("eventhub.group",), "eventhub.group: expected a name, such as $Default")
    if given.ca_file and not PurePosixPath(given.ca_file).is_absolute():
        yield relative("eventhub.ca_file", given.ca_file)
    yield from _login(config, [address.rpartition(":")[0].strip("[]") for address in addresses])


def hub_here(config: Config) -> Iterator[Problem]:
    """The certificates to trust can be read here."""
    path = config.eventhub.ca_file
    if path and not os.access(path, os.R_OK):
        yield Problem(("eventhub.ca_file",), f"eventhub.ca_file: {path} cannot be read")


def _login(config: Config, hosts: list[str]) -> Iterator[Problem]:
    given = config.eventhub
    text, token = "eventhub.connection_string", "eventhub.auth.method"
    with_token = given.auth.method != "none"
    if given.connection_string and with_token:
        yield Problem((text, token), f"{text}: there is also {token}: one login of the two, not both")
    if given.security_protocol == "PLAINTEXT":
        key = "eventhub.security_protocol"
        if not all(map(is_loopback, hosts)):
            yield Problem(
                (key, "eventhub.bootstrap"), f"{key}: PLAINTEXT is for a local stack on this machine only"
            )
        if given.connection_string or with_token:
            yield Problem((key, text, token), f"{key}: PLAINTEXT has no login, and one is configured")
        return
    if not given.connection_string and not with_token:
        yield Problem((text, token), f"{text}: needed with security_protocol SASL_SSL, or {token}")
    for host in hosts:
        if not may_carry_token(f"https://{host}", _HOSTS):
            yield Problem(
                ("eventhub.bootstrap",),
                f"eventhub.bootstrap: no login is sent to {host}: expected a host of {' or '.join(_HOSTS)}",
            )

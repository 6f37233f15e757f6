"""What is wrong with the section of an Event Hub is told before anything starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipelined.config.checks import run, run_here
from pipelined.config.leaves import built

HUB: dict[str, Any] = {
    "eventhub.bootstrap": "ns.servicebus.windows.net:9093",
    "eventhub.topic": "claims",
    "eventhub.connection_string": "env:HUB",
}
TOKEN: dict[str, Any] = {"eventhub.connection_string": "", "eventhub.auth.method": "managed_identity"}
LOCAL: dict[str, Any] = {
    "eventhub.bootstrap": "127.0.0.1:9092",
    "eventhub.security_protocol": "PLAINTEXT",
    "eventhub.connection_string": "",
}


@pytest.mark.parametrize(
    "values",
    [
        {},
        TOKEN,
        LOCAL,
        {"eventhub.bootstrap": "127.0.0.1:9093"},
        {"eventhub.bootstrap": "ns.servicebus.usgovcloudapi.net:9093"},
        {"eventhub.bootstrap": "NS.ServiceBus.windows.net:9093"},
        {"eventhub.group": "pipelined"},
    ],
)
def test_what_is_allowed_has_no_problem(values: dict[str, Any]) -> None:
    assert list(run(built(HUB | values))) == []


def test_without_an_address_nothing_is_judged() -> None:
    assert list(run(built({"eventhub.topic": "a b", "eventhub.security_protocol": "PLAINTEXT"}))) == []


@pytest.mark.parametrize(
    ("values", "key", "words"),
    [
        ({"eventhub.bootstrap": "ns.servicebus.windows.net"}, "eventhub.bootstrap", "host:port"),
        (
            {"eventhub.bootstrap": "hub.example.org:9093"},
            "eventhub.bootstrap",
            "no login is sent to hub.example",
        ),
        (
            {"eventhub.bootstrap": "ns.servicebus.windows.net.example.org:9093"},
            "eventhub.bootstrap",
            "no login is sent",
        ),
        (
            {"eventhub.bootstrap": "ns.servicebus.windows.net:9093,evil.example:9093"},
            "eventhub.bootstrap",
            "no login is sent to evil.example",
        ),
        ({"eventhub.topic": "a/b"}, "eventhub.topic", "no Event Hub's name"),
        ({"eventhub.group": ""}, "eventhub.group", "expected a name"),
        ({"eventhub.ca_file": "ca.pem"}, "eventhub.ca_file", "absolute"),
        ({"eventhub.connection_string": ""}, "eventhub.connection_string", "needed with"),
        ({"eventhub.auth.method": "az_cli"}, "eventhub.connection_string", "one login of the two"),
        (
            LOCAL | {"eventhub.bootstrap": "ns.servicebus.windows.net:9092"},
            "eventhub.security_protocol",
            "on this machine only",
        ),
        (LOCAL | {"eventhub.connection_string": "env:HUB"}, "eventhub.security_protocol", "has no login"),
    ],
)
def test_what_is_not_allowed_is_told_with_its_key(values: dict[str, Any], key: str, words: str) -> None:
    problems = list(run(built(HUB | values)))
    assert any(problem.keys[0] == key and words in problem.text for problem in problems), problems


def test_certificates_that_cannot_be_read_here_are_told(tmp_path: Path) -> None:
    config = built(HUB | {"eventhub.ca_file": str(tmp_path / "none.pem")})
    [problem] = run_here(config, {"HUB": "x"})
    assert problem.keys == ("eventhub.ca_file",)

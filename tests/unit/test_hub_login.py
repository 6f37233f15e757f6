"""The login of an Event Hub: which connection strings are meant for it, and what its refusals mean."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError

from pipelined.config import Config
from pipelined.config.leaves import built
from pipelined.errors import AuthError, ConfigError, DependencyError, PipelinedError
from pipelined.kafka.hub_failures import failure
from pipelined.kafka.settings import hub_consumer_settings
from pipelined.sources.hub_login import Login, hub_host, parse_connection_string

KEY = "c2VjcmV0IHBsYW50ZWQga2V5"
STRING = f"Endpoint=sb://ns.servicebus.windows.net/;SharedAccessKeyName=reader;SharedAccessKey={KEY}="


def config_for(tmp_path: Path, text: str = STRING, **more: Any) -> Config:
    secret = tmp_path / "secret"
    secret.write_text(text)
    values: dict[str, Any] = {
        "eventhub.bootstrap": "NS.servicebus.windows.net:9093",
        "eventhub.topic": "claims",
        "eventhub.connection_string": f"file:{secret}",
    }
    return built(values | {name.replace("__", "."): value for name, value in more.items()})


def test_a_connection_string_is_taken_apart_whatever_its_order_and_spaces() -> None:
    assert parse_connection_string(f" EntityPath = hub ;{STRING};") == {
        "entitypath": "hub",
        "endpoint": "sb://ns.servicebus.windows.net/",
        "sharedaccesskeyname": "reader",
        "sharedaccesskey": KEY + "=",
    }
    assert parse_connection_string("just words") == {}


@pytest.mark.parametrize(
    "text", [STRING, f"{STRING};EntityPath=Claims", STRING.replace("sb://ns", "sb://NS")]
)
def test_the_connection_string_of_this_hub_is_its_password(tmp_path: Path, text: str) -> None:
    settings = Login(config_for(tmp_path, text)).settings()
    assert settings == {
        "sasl.mechanisms": "PLAIN",
        "sasl.username": "$ConnectionString",
        "sasl.password": text,
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("planted-secret", "no connection string"),
        (STRING.replace("sb://ns.", "sb://other."), r"that of other\.servicebus\.windows\.net"),
        (f"{STRING};EntityPath=orders", "for the Event Hub orders alone"),
        (
            f"Endpoint=sb://ns.servicebus.windows.net/;SharedAccessSignature={KEY}",
            "signature .* is not taken by the Kafka protocol",
        ),
        (f"Endpoint=sb://localhost/;SharedAccessKeyName=a;SharedAccessKey={KEY}", "that of localhost"),
    ],
)
def test_another_connection_string_is_refused_without_being_shown(
    tmp_path: Path, text: str, words: str
) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        Login(config_for(tmp_path, text)).settings()
    assert KEY not in str(caught.value)
    assert "planted" not in str(caught.value)


def test_a_connection_string_that_changed_is_read_again(tmp_path: Path) -> None:
    login = Login(config_for(tmp_path))
    login.settings()
    renewed = STRING.replace(KEY, "bmV3")
    (tmp_path / "secret").write_text(renewed)
    assert login.settings()["sasl.password"] == renewed


def test_a_token_is_asked_for_before_the_client_is_made(tmp_path: Path) -> None:
    ends = int(time.time()) + 3600
    claims = base64.urlsafe_b64encode(json.dumps({"exp": ends}).encode()).rstrip(b"=").decode()
    token = f"eyJhbGciOiJub25lIn0.{claims}.c2ln"
    path = tmp_path / "token"
    config = config_for(
        tmp_path,
        eventhub__connection_string="",
        eventhub__auth__method="token_file",
        eventhub__auth__token_file=str(path),
    )
    login = Login(config)
    with pytest.raises(AuthError):
        login.settings()
    path.write_text(token)
    settings = login.settings()
    assert settings["sasl.mechanisms"] == "OAUTHBEARER"
    assert settings["oauth_cb"](None) == (token, ends)
    assert login.expires_at == ends


def test_without_a_login_there_is_none_in_the_settings(tmp_path: Path) -> None:
    config = config_for(
        tmp_path,
        eventhub__bootstrap="127.0.0.1:9092",
        eventhub__security_protocol="PLAINTEXT",
        eventhub__connection_string="",
    )
    assert Login(config).settings() == {}
    settings = hub_consumer_settings(config, {})
    assert not [name for name in settings if name.startswith(("sasl.", "ssl."))]


def test_the_client_waits_and_keeps_alive_as_event_hubs_need(tmp_path: Path) -> None:
    settings = hub_consumer_settings(config_for(tmp_path), {})
    assert settings["socket.keepalive.enable"]
    assert settings["connections.max.idle.ms"] == settings["metadata.max.age.ms"] == 180_000
    assert settings["socket.timeout.ms"] >= 60_000
    assert settings["topic.metadata.refresh.interval.ms"] <= 60_000
    assert settings["bootstrap.servers"] == "NS.servicebus.windows.net:9093"
    assert settings["auto.offset.reset"] == "error"


def test_the_host_is_that_of_the_first_address() -> None:
    assert hub_host(built({"eventhub.bootstrap": "A.b.c:9093, d:1"})) == "a.b.c"
    assert hub_host(built({"eventhub.bootstrap": "[::1]:9093"})) == "::1"


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (KafkaError(KafkaError._AUTHENTICATION, "no"), AuthError, "eventhub.connection_string"),
        (
            KafkaError(KafkaError._AUTHENTICATION, "handshake failed: Local: Broker transport failure"),
            DependencyError,
            "no answer",
        ),
        (KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED), AuthError, "Listen"),
        (KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED), AuthError, "Azure Event Hubs Data Receiver"),
        (KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART), ConfigError, "eventhub.topic"),
        (KafkaError(KafkaError._SSL, "certificate verify failed: x"), ConfigError, "eventhub.ca_file"),
        (KafkaError(KafkaError._SSL, "handshake"), DependencyError, "TLS"),
        (KafkaError(KafkaError._INVALID_ARG, "ssl.ca.location failed"), ConfigError, "eventhub.ca_file"),
        (KafkaError(KafkaError._RESOLVE, "what"), DependencyError, "DNS"),
        (KafkaError(KafkaError._TRANSPORT, "refused"), DependencyError, "9093"),
        (KafkaError(KafkaError._TIMED_OUT), DependencyError, "a connection that is there"),
    ],
)
def test_each_refusal_says_who_has_to_act(
    tmp_path: Path, error: KafkaError, kind: type[PipelinedError], words: str
) -> None:
    told = failure(error, config_for(tmp_path))
    assert type(told) is kind
    assert words in str(told)
    assert "claims at NS.servicebus.windows.net:9093" in str(told)

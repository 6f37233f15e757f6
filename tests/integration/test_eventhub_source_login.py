"""Logging in to an Event Hub: passwords, tokens and certificates, and what is said when they are refused."""

from __future__ import annotations

import base64
import json
import logging
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from hubs import Hub, event, nothing_more, numbers_of, taken
from pipelined.config import Config
from pipelined.errors import AuthError, ConfigError, PipelinedError
from pipelined.local.kafka import Cluster
from pipelined.sources.eventhub import EventhubSource
from realparts import local_kafka_missing, require
from tcpproxy import Proxy
from waiting import until

KEY = "cGxhbnRlZCBzZWNyZXQga2V5"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    require("the local Kafka", local_kafka_missing())
    with Cluster(sasl=True) as running:
        yield running


@pytest.fixture
def hub(cluster: Cluster, tmp_path: Path, domain: str) -> Hub:
    return Hub(cluster, domain, tmp_path)


def refusal(config: Config) -> PipelinedError:
    """What the first fetch raises; it comes within seconds, not when a client gives up."""
    began = time.monotonic()
    source = EventhubSource(config)
    source.resume(None)
    with closing(source), pytest.raises(PipelinedError) as caught:
        source.fetch(0.2)
    assert time.monotonic() - began < 8
    return caught.value


def token(ends_in: float) -> str:
    """A token as the local Kafka takes it, unsigned."""
    now = time.time()
    claims = {"sub": "reader", "iat": now - 60, "exp": now + ends_in}
    head, body = (
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()
        for part in ({"alg": "none"}, claims)
    )
    return f"{head}.{body}."


def with_token(hub: Hub, path: Path) -> Config:
    return hub.config(
        eventhub__connection_string="",
        eventhub__auth__method="token_file",
        eventhub__auth__token_file=str(path),
    )


def test_a_wrong_password_is_told_and_not_shown(
    hub: Hub, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    secret = tmp_path / "wrong"
    secret.write_text(f"Endpoint=sb://localhost/;SharedAccessKeyName=local;SharedAccessKey={KEY}")
    with caplog.at_level(logging.DEBUG):
        error = refusal(hub.config(eventhub__connection_string=f"file:{secret}"))
    assert isinstance(error, AuthError)
    assert "eventhub.connection_string" in str(error)
    assert KEY not in str(error) + caplog.text + repr(error)


def test_after_the_password_was_mended_the_same_source_goes_on(
    hub: Hub, cluster: Cluster, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text(f"Endpoint=sb://localhost/;SharedAccessKeyName=local;SharedAccessKey={KEY}")
    hub.put([event(1)])
    source = EventhubSource(hub.config(eventhub__connection_string=f"file:{secret}"))
    source.resume(None)
    with closing(source):
        for _ in range(2):
            with pytest.raises(AuthError):
                source.fetch(0.2)
        secret.write_text(cluster.connection_string)
        outputs, _ = taken(source, 1)
    assert numbers_of(outputs) == [1]


def test_a_certificate_that_nobody_vouches_for_is_refused(hub: Hub) -> None:
    error = refusal(hub.config(eventhub__ca_file=""))
    assert isinstance(error, ConfigError)
    assert "not trusted" in str(error)
    assert "eventhub.ca_file" in str(error)


def test_a_certificate_for_another_name_is_refused(hub: Hub, cluster: Cluster) -> None:
    with Proxy("127.0.0.2") as proxy:
        proxy.target = int(cluster.sasl_bootstrap.rpartition(":")[2])
        error = refusal(hub.config(eventhub__bootstrap=f"127.0.0.2:{proxy.port}"))
    assert isinstance(error, ConfigError)
    assert "eventhub.bootstrap has the name that the certificate is for" in str(error)


def test_certificates_that_are_none_are_refused(hub: Hub, tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    path.write_text("no certificate")
    error = refusal(hub.config(eventhub__ca_file=str(path)))
    assert isinstance(error, ConfigError)
    assert "eventhub.ca_file" in str(error)


def test_a_token_is_taken_and_its_end_is_told(hub: Hub, tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(token(600))
    hub.put([event(1), event(2)])
    source = EventhubSource(with_token(hub, path))
    source.resume(None)
    with closing(source):
        outputs, _ = taken(source, 2)
        ends = source.facts().token_expires
    assert sorted(numbers_of(outputs)) == [1, 2]
    assert ends is not None
    assert abs(ends - time.time() - 600) < 60


def test_a_token_that_has_ended_is_refused_and_the_next_one_taken(hub: Hub, tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(token(-30))
    hub.put([event(1)])
    source = EventhubSource(with_token(hub, path))
    source.resume(None)
    with closing(source):
        with pytest.raises(AuthError):
            source.fetch(0.2)
        path.write_text(token(600))
        outputs, _ = taken(source, 1)
    assert numbers_of(outputs) == [1]


def test_a_token_is_renewed_while_the_connection_stays(hub: Hub, tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(token(8))
    source = EventhubSource(with_token(hub, path))
    source.resume(None)
    with closing(source):
        source.fetch(0.2)
        renewed = token(600)
        path.write_text(renewed)

        def seen() -> bool:
            source.fetch(0.2)
            ends = source.facts().token_expires
            return ends is not None and ends > time.time() + 60

        until(seen, "the client does not ask for the next token")
        hub.put([event(1)])
        outputs, _ = taken(source, 1)
        assert nothing_more(source, 0.3) == []
    assert numbers_of(outputs) == [1]

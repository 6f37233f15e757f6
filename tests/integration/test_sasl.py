"""Our clients against a listener with TLS and a password, as managed clusters present themselves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelined.config import Config
from pipelined.config.leaves import built
from pipelined.errors import UnavailableError
from pipelined.kafka import topics
from pipelined.local.kafka import SASL_USER, Cluster
from realparts import local_kafka_missing, require


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    require("the local Kafka", local_kafka_missing())
    with Cluster(sasl=True) as running:
        yield running


def config_for(cluster: Cluster, password: Path, domain: str, ca: str | None = None) -> Config:
    return built(
        {
            "domain": domain,
            "kafka.bootstrap": cluster.sasl_bootstrap,
            "kafka.security_protocol": "SASL_SSL",
            "kafka.sasl_mechanism": "PLAIN",
            "kafka.sasl_username": SASL_USER,
            "kafka.sasl_password": f"file:{password}",
            "kafka.ca_file": str(cluster.ca_path) if ca is None else ca,
            "topics.replication_factor": 1,
            "topics.min_insync_replicas": 1,
        }
    )


def test_topics_are_applied_over_tls_with_a_password_from_a_file(
    cluster: Cluster, tmp_path: Path, domain: str
) -> None:
    password = tmp_path / "password"
    password.write_text(cluster.connection_string + "\n")
    config = config_for(cluster, password, domain)
    topics.apply(config, topics.plan(config))
    topics.check(config)
    assert topics.plan(config) == []


def test_a_wrong_password_is_told_and_not_shown(cluster: Cluster, tmp_path: Path, domain: str) -> None:
    password = tmp_path / "password"
    password.write_text("planted-secret")
    with pytest.raises(UnavailableError) as caught:
        topics.plan(config_for(cluster, password, domain), timeout=3)
    assert cluster.sasl_bootstrap in str(caught.value)
    assert "planted-secret" not in str(caught.value)


def test_a_certificate_nobody_vouches_for_is_refused(cluster: Cluster, tmp_path: Path, domain: str) -> None:
    password = tmp_path / "password"
    password.write_text(cluster.connection_string)
    with pytest.raises(UnavailableError):
        topics.plan(config_for(cluster, password, domain, ca=""), timeout=3)

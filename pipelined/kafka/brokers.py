"""What answers at the brokers: whether it is Kafka, of which release, and whether it lets us in."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading

from confluent_kafka import KafkaError, KafkaException, Producer, libversion
from confluent_kafka.admin import AdminClient

from pipelined.config import Config
from pipelined.config.cluster import Kafka
from pipelined.errors import AuthError, ConfigError, PipelinedError, UnavailableError
from pipelined.kafka.settings import Names, admin_settings, producer_settings

__all__ = ["addresses", "client_release", "may_transact", "release"]

_API_VERSIONS = 18
#: The longest answer that can be one.
_MOST_BYTES = 65536
_LOGIN = frozenset({KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED})


def client_release() -> str:
    """The version of librdkafka."""
    return str(libversion()[0])


def addresses(config: Config, *, timeout: float) -> list[str]:
    """Log in; the addresses ("host:port") under which the brokers want to be reached, in their order.

    Raises AuthError where they refuse the login, ConfigError for a certificate that is not trusted,
    UnavailableError where they do not answer within ``timeout`` seconds.
    """
    told: list[KafkaError] = []
    try:
        admin = AdminClient(admin_settings(config) | {"error_cb": told.append})
        found = admin.list_topics(timeout=timeout).brokers
    except KafkaException as error:
        with contextlib.suppress(NameError):
            admin.poll(0)  # what it says last is only that nobody answered
        reasons = [each for each in told if each.code() != KafkaError._ALL_BROKERS_DOWN]
        if not reasons:
            text = f"Kafka at {config.kafka.bootstrap} gives no answer, on a connection that is there"
            raise UnavailableError(text) from error
        raise _failure(reasons[-1], config) from error
    return [f"{broker.host}:{broker.port}" for _, broker in sorted(found.items())]


def _failure(error: KafkaError, config: Config) -> PipelinedError:
    kafka, text = config.kafka, error.str()
    where = f"Kafka at {kafka.bootstrap}"
    # A connection that is cut while it logs in is called a failed login, too.
    if error.code() in _LOGIN and "Local: " not in text:
        return AuthError("kafka_login_refused", f"{where} refuses the login of {kafka.sasl_username}: {text}")
    if error.code() == KafkaError._SSL and "certificate verify failed" in text:
        return ConfigError(f"{where} shows a certificate that is not trusted: {text}")
    return UnavailableError(f"{where} does not answer: {text}")


def release(kafka: Kafka, address: str, *, timeout: float) -> tuple[int, ...]:
    """The release of the broker at ``address`` as what it speaks tells it, such as (4, 1).

    Asked without logging in. Raises UnavailableError where no Kafka answers within ``timeout`` seconds.
    """
    # Heavy, and needed here only.
    from kafka.protocol.broker_version_data import BrokerVersionData

    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout) as plain:
            plain.settimeout(timeout)
            with _secured(kafka, plain, host) as connection:
                answer = _asked(connection)
        versions = {key: (low, high) for key, low, high in struct.iter_unpack(">hhh", answer)}
        return tuple(BrokerVersionData(api_versions=versions).broker_version)
    except (OSError, ValueError, struct.error) as error:
        text = "no answer" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
        raise UnavailableError(f"no Kafka answers at {address}: {text}") from error


def _secured(kafka: Kafka, plain: socket.socket, host: str) -> socket.socket:
    if kafka.security_protocol.endswith("PLAINTEXT"):
        return plain
    context = ssl.create_default_context(cafile=kafka.ca_file or None)
    return context.wrap_socket(plain, server_hostname=host.strip("[]"))


def _asked(connection: socket.socket) -> bytes:
    """What it speaks: three numbers for each kind of request, as the protocol's first version has them."""
    client = b"pipelined"
    request = struct.pack(f">hhih{len(client)}s", _API_VERSIONS, 0, 1, len(client), client)
    connection.sendall(struct.pack(">i", len(request)) + request)
    with connection.makefile("rb") as stream:
        (size,) = struct.unpack(">i", stream.read(4))
        if not 0 < size <= _MOST_BYTES:
            raise ValueError("what it says is not Kafka's protocol")
        number, code, count, rest = struct.unpack(f">ihi{size - 10}s", stream.read(size))
    if number != 1 or code != 0 or len(rest) < 6 * count:
        raise ValueError("what it says is not Kafka's protocol")
    found: bytes = rest[: 6 * count]
    return found


def may_transact(config: Config, *, timeout: float) -> None:
    """Begin a session of transactions under a name that no worker has, and give it back.

    Raises AuthError where that is refused, UnavailableError where the brokers cannot do it in time.
    """
    name = Names(config).instance("doctor", 0)
    producer = Producer(producer_settings(config, name))
    try:
        producer.init_transactions(timeout)
    except KafkaException as error:
        reason = error.args[0]
        if reason.code() in {
            KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
            KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        }:
            msg = f"the transactional id {name} is refused: {reason.str()}"
            raise AuthError("transactions_refused", msg) from error
        raise UnavailableError(f"no transaction can be begun: {reason.str()}") from error
    finally:
        # Its connections take a moment to close where a broker is silent; nobody waits for them.
        last = [producer]
        del producer
        threading.Thread(target=last.clear, name="doctor-close", daemon=True).start()

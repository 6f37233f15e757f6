"""What the client says of the Event Hub, as an error of ours: who has to act, and what to do."""

from __future__ import annotations

from confluent_kafka import KafkaError

from pipelined.config import Config
from pipelined.errors import AuthError, ConfigError, DependencyError, PipelinedError

__all__ = ["failure"]

_LOGIN = frozenset({KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED})
_CUT = "Local: "
_RIGHTS = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    }
)
_NO_TOPIC = frozenset(
    {
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError._UNKNOWN_PARTITION,
        KafkaError.TOPIC_EXCEPTION,
    }
)


def failure(error: KafkaError, config: Config) -> PipelinedError:
    """The error of ours for what the client says of the Event Hub: who must act, and what to do."""
    hub = config.eventhub
    where, code, text = f"the Event Hub {hub.topic} at {hub.bootstrap}", error.code(), error.str()
    # A connection that is cut while it logs in is called a failed login, too.
    if code in _LOGIN and _CUT not in text:
        means = (
            "the connection string (eventhub.connection_string): was its key renewed? It needs the claim "
            "Listen"
            if hub.connection_string
            else 'the login (eventhub.auth): its identity needs the role "Azure Event Hubs Data Receiver"'
        )
        return AuthError("hub_login_refused", f"{where} refuses the login: {text}. See {means}")
    if code in _RIGHTS:
        return AuthError(
            "hub_not_allowed",
            f"{where} is not open to this login: {text}. Give it the claim Listen, or the role "
            '"Azure Event Hubs Data Receiver", on the namespace or on this Event Hub',
        )
    if code in _NO_TOPIC:
        return ConfigError(
            f"{where} does not exist, or not any more: {text}. See eventhub.topic; where it was deleted and "
            "made again, run `pipelinectl sources reset eventhub` to read the new one from its beginning"
        )
    if code == KafkaError._SSL:
        if "certificate verify failed" in text:
            return ConfigError(
                f"{where} shows a certificate that is not trusted: {text}. See eventhub.ca_file (empty: the "
                "certificates of this system), whether eventhub.bootstrap has the name that the "
                "certificate is for, and whether a proxy on the way shows its own"
            )
        return DependencyError("hub_tls_failed", f"no TLS connection to {where}: {text}")
    if code == KafkaError._INVALID_ARG:
        return ConfigError(f"{where} cannot be connected to: {text}. See eventhub.ca_file")
    if code == KafkaError._TIMED_OUT:
        return DependencyError(
            "hub_silent", f"{where} gives no answer, on a connection that is there: {text}"
        )
    if code == KafkaError._RESOLVE:
        return DependencyError("hub_unknown_host", f"{where} is not known to the DNS: {text}")
    return DependencyError(
        "hub_unreachable",
        f"{where} gives no answer: {text}. Port 9093 has to be open to it; the Basic tier of Event Hubs "
        "has no Kafka protocol",
    )

"""How the Event Hub is logged in to."""

from __future__ import annotations

import time

from pipelined.auth import provider
from pipelined.config import Config
from pipelined.config.secrets import resolve
from pipelined.config.trust import is_loopback
from pipelined.errors import AuthError, ConfigError
from pipelined.kafka.settings import Settings
from pipelined.messages.codec import iso_ms

__all__ = ["Login", "hub_host", "parse_connection_string"]

_USER = "$ConnectionString"
_SECTION = "eventhub.auth"
#: A token whose end is not known is asked for again after so long.
_UNTOLD_S = 300.0


def hub_host(config: Config) -> str:
    """The host of the Event Hub's first address, in lower case and without its port."""
    return config.eventhub.bootstrap.split(",")[0].strip().rpartition(":")[0].strip("[]").lower()


def parse_connection_string(text: str) -> dict[str, str]:
    """The parts of a connection string by their names in lower case; empty for what is none."""
    parts = {}
    for part in text.split(";"):
        name, found, value = part.partition("=")
        if found:
            parts[name.strip().lower()] = value.strip()
        elif part.strip():
            return {}
    return parts


class Login:
    """The login of ``[eventhub]``: a connection string, a token, or none for what is on this machine."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._host = hub_host(config)
        scope = f"https://{self._host}/.default"
        self._provider = provider(config.eventhub.auth, scope, section=_SECTION, host=self._host)
        self._sent = ""

    @property
    def expires_at(self) -> float | None:
        """When the token in hand ends, in seconds since the epoch; None where there is none."""
        return self._provider.expires_at

    def settings(self) -> Settings:
        """The client settings of the login, with secrets as they are now.

        Raises ConfigError for a connection string that cannot be meant, AuthError and DependencyError
        where no token is to be had.
        """
        hub = self._config.eventhub
        if hub.security_protocol == "PLAINTEXT":
            return {}
        if hub.connection_string:
            text = resolve(hub.connection_string)
            self._check(parse_connection_string(text))
            return {"sasl.mechanisms": "PLAIN", "sasl.username": _USER, "sasl.password": text}
        # Asked for here, where an error is one: the client would swallow it, after ten seconds.
        self._sent = self._provider.token()
        ends = self._provider.expires_at
        if ends is not None and ends <= time.time():
            raise AuthError("token_ended", f"{_SECTION}: the token ended at {iso_ms(round(ends * 1000))}")
        return {"sasl.mechanisms": "OAUTHBEARER", "oauth_cb": self._token}

    def refused(self) -> None:
        """The service did not take the login: a token is not sent again."""
        if self._sent:
            self._provider.refresh(self._sent)

    def close(self) -> None:
        """Renew nothing any more."""
        self._provider.close()

    def _token(self, _settings: str | None) -> tuple[str, float]:
        """Called by the client in a thread of its own, first and shortly before a token ends."""
        self._sent = self._provider.token()
        return self._sent, self._provider.expires_at or time.time() + _UNTOLD_S

    def _check(self, parts: dict[str, str]) -> None:
        name = "eventhub.connection_string"
        endpoint = parts.get("endpoint", "")
        host = endpoint.partition("://")[2].split("/")[0].split(":")[0].lower()
        if not host:
            raise ConfigError(
                f"{name}: what it refers to is no connection string: expected Endpoint=sb://…/;"
                "SharedAccessKeyName=…;SharedAccessKey=…, as the portal shows it (Shared access policies)"
            )
        if not parts.get("sharedaccesskeyname") or not parts.get("sharedaccesskey"):
            raise ConfigError(
                f"{name}: the connection string has no SharedAccessKeyName and SharedAccessKey; a signature "
                "(SharedAccessSignature) is not taken by the Kafka protocol"
            )
        if host != self._host and not (is_loopback(host) and is_loopback(self._host)):
            raise ConfigError(
                f"{name}: the connection string is that of {host}, but eventhub.bootstrap is {self._host}; "
                "they must be the same namespace"
            )
        path = parts.get("entitypath", "")
        if path and path.lower() != self._config.eventhub.topic.lower():
            raise ConfigError(
                f"{name}: the connection string is for the Event Hub {path} alone (EntityPath), but "
                f"eventhub.topic is {self._config.eventhub.topic}"
            )

"""The Event Hub, read from its first message by a consumer of no group's business."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

from confluent_kafka import OFFSET_BEGINNING

from pipelined.auth import TokenProvider, provider
from pipelined.config.secrets import resolve
from pipelined.config.tree import Config, Eventhub
from pipelined.errors import RecordError, UnavailableError
from pipelined.ledger.connection import Connection, Place, is_end, is_missing, receive
from pipelined.ledger.content import Item, items_of_message

__all__ = ["EventhubReader"]

_PATIENCE_S: Final = 30.0
_USER: Final = "$ConnectionString"
#: A token whose end is not known is asked for again after so long.
_UNTOLD_S: Final = 300.0


class EventhubReader:
    """The messages of the configured hub, as they come. Its methods raise ``UnavailableError``."""

    name = "eventhub"

    def __init__(self, config: Config) -> None:
        hub = config.eventhub
        self._topic = hub.topic
        host = hub.bootstrap.split(",")[0].strip().rpartition(":")[0]
        self._login = provider(hub.auth, f"https://{host}/.default", section="eventhub.auth", host=host)
        self._connection = Connection(config, _settings(hub, self._login))
        numbers = self._connection.topics().get(hub.topic)
        if not numbers:
            raise UnavailableError(
                f"{hub.bootstrap} has no hub {hub.topic}; check eventhub.topic, and the login"
            )
        self._places: list[Place] = [(hub.topic, number) for number in numbers]
        self._at = dict.fromkeys(self._places, 0)
        self._held: Counter[Item] = Counter()
        self._count = 0
        self.before: Counter[Item] = Counter()
        self.begins_anywhere = hub.start != "beginning"
        self.forgets = any(self._connection.first(self._places).values())
        self._consumer = self._connection.consumer([(*place, OFFSET_BEGINNING) for place in self._places])

    def close(self) -> None:
        """Give the connection back."""
        self._consumer.close()
        self._login.close()

    def poll(self) -> int:
        """Take in what has come; how many messages there are."""
        self._read(0.0)
        return self._count

    def catch_up(self) -> int:
        """Take in everything that is there now; how many messages that is."""
        ends = self._connection.end(self._places)
        heard = time.monotonic()
        while any(self._at[place] < end for place, end in ends.items()):
            if self._read(0.2):
                heard = time.monotonic()
            elif time.monotonic() - heard > _PATIENCE_S:
                raise UnavailableError(
                    f"{self._connection.bootstrap} has messages, but delivered none for {_PATIENCE_S:g} s"
                )
        return self._count

    def remember(self) -> None:
        """Keep what there is now as what there was before."""
        self.catch_up()
        self.before = self._held.copy()

    def items(self) -> Iterator[Item]:
        """Each message."""
        self.catch_up()
        yield from self._held.elements()

    def _read(self, timeout: float) -> int:
        messages = receive(self._consumer, timeout)
        for message in messages:
            place = (message.topic(), message.partition())
            if is_missing(message):
                raise UnavailableError(f"the hub {self._topic} was deleted while the ledger read it")
            if is_end(message):
                self._at[place] = message.offset()
                continue
            self._at[place] = message.offset() + 1
            found = items_of_message(message.value() or b"")
            self._count += len(found)
            self._held.update(found)
        return len(messages)


def _settings(hub: Eventhub, login: TokenProvider) -> dict[str, Any]:
    """The client settings of the hub; UnavailableError where it cannot be logged in to."""
    settings: dict[str, Any] = {
        "bootstrap.servers": hub.bootstrap,
        "security.protocol": hub.security_protocol,
    }
    if hub.ca_file:
        settings["ssl.ca.location"] = hub.ca_file
    if not hub.security_protocol.startswith("SASL"):
        return settings
    if hub.connection_string:
        password = resolve(hub.connection_string)
        return settings | {"sasl.mechanisms": "PLAIN", "sasl.username": _USER, "sasl.password": password}

    def token(_settings: str | None) -> tuple[str, float]:
        return login.token(), login.expires_at or time.time() + _UNTOLD_S

    try:
        token(None)  # an error of the login is told here; the client would keep it to itself
    except RecordError as error:
        raise UnavailableError(
            f"the ledger cannot log in to the Event Hub {hub.bootstrap}: {error}"
        ) from error
    return settings | {"sasl.mechanisms": "OAUTHBEARER", "oauth_cb": token}

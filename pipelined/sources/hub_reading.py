"""From messages to outputs, for as long as the partitions are assigned at one position."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

from pipelined.errors import ConfigError, PoisonError
from pipelined.kafka.hub import HubConnection, Told
from pipelined.messages.identity import event_key
from pipelined.sources.hub_events import odd_message
from pipelined.sources.hub_position import Place, Position
from pipelined.stages.contract import Output, Stream

__all__ = ["Reading"]

_SOURCE = ("source", b"eventhub")


class Reading:
    """Moves ``position`` behind what it is given.

    ``again`` are partitions whose last record is read once more, to see whether it is what it was.
    ``largest`` is the size of the largest message that our topics take.
    """

    def __init__(self, position: Position, again: set[int], largest: int) -> None:
        self.position = position
        #: Partitions whose next offset the service does not have.
        self.refused: set[int] = set()
        #: Whether the partitions are to be assigned anew: what was fetched beyond the position is void.
        self.over = False
        self._again = again
        self._largest = largest

    def add(self, outputs: list[Output], messages: Sequence[Any], connection: HubConnection) -> int:
        """Add what messages hold; returns how many bytes. Those behind one that ends it are left out."""
        if self._again:
            messages = self._unread(messages)
        places, held, add, largest = self.position.partitions, 0, outputs.append, self._largest
        last: dict[int, Any] = {}
        for message in messages:
            if message.error() is not None:
                self._note(connection.told(message), message, places)
                continue
            number, offset, value = message.partition(), message.offset(), message.value() or b""
            size = len(value)
            if size > largest:
                if outputs:
                    self.over = True  # what lies before it goes first
                    break
                self._too_large(number, offset, size)
            origin = ("origin", b"%d@%d" % (number, offset))
            try:
                key = event_key(value)
                add(Output(Stream.RAW, key, value, [_SOURCE, ("trace_id", key), origin]))
            except PoisonError:
                outputs += odd_message(value, message.key(), [_SOURCE, origin])
            last[number] = message
            held += size
        for number, message in last.items():
            offset, place = message.offset(), places[number]
            place.next, place.last = max(place.next, offset + 1), offset
            place.timestamp = message.timestamp()[1]
        return held

    def _unread(self, messages: Sequence[Any]) -> list[Any]:
        """Without those that are read once more; raises ConfigError where they are not what they were."""
        unread = []
        for message in messages:
            number = message.partition()
            if message.error() is None and number in self._again:
                self._again.discard(number)
                if self.position.recognised(number, message.offset(), message.timestamp()[1]):
                    continue
            unread.append(message)
        return unread

    def _note(self, told: Told, message: Any, places: dict[int, Place]) -> None:
        number = message.partition()
        if told is Told.END:
            # Behind the last record there may be marks of transactions, which no record shows.
            places[number].next = max(places[number].next, message.offset())
        elif told is Told.REFUSED:
            self.refused.add(number)
            self.over = True

    def _too_large(self, number: int, offset: int, size: int) -> NoReturn:
        raise ConfigError(
            f"the message at offset {offset} of partition {number} of the Event Hub {self.position.hub} has "
            f"{size} bytes, more than kafka.max_message_bytes ({self._largest}): raise it, run `pipelinectl "
            "topics apply`, and restart the workers; what came before is taken"
        )

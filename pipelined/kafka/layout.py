"""With how many partitions deduplication reckons, and since when: a record on the checkpoints topic.

A trace id is known to the owner of its partition, and where its partition is, the number of partitions
decides. So a change of that number has to be known to the ingesters: what was admitted before it may stand
in another partition than its duplicates come from.
"""

from __future__ import annotations

import msgspec
from confluent_kafka import KafkaError, Message, Producer

from pipelined.config import Config
from pipelined.errors import UnavailableError
from pipelined.kafka.checkpoints import read_checkpoint
from pipelined.kafka.settings import Names, producer_settings

__all__ = ["Layout", "difference", "read_layout", "write_layout"]

_TIMEOUT = 15.0


class Layout(msgspec.Struct, frozen=True):
    """``events.raw`` has ``partitions``; the rest says what was admitted before it had that many.

    ``ends`` are the ends of the partitions of ``ingested`` (a topic's name) at that moment, ``since``
    (ms); nothing was admitted before where there are none. ``newest`` is the newest arrival (ms) in each,
    -1 in one that holds nothing.
    """

    partitions: int
    ingested: str
    since: int = 0
    ends: list[int] = []
    newest: list[int] = []

    @property
    def last_arrival(self) -> int:
        """The newest arrival that may have been under way before the change, in ms; 0 for no change."""
        return max(self.since, *self.newest) if self.ends else 0


def _key(config: Config) -> str:
    return f"layout/{Names(config).topic('events_raw')}"


def read_layout(config: Config) -> Layout | None:
    """What is recorded, None where nothing is. Raises UnavailableError when it cannot be read."""
    value = read_checkpoint(config, _key(config))
    if value is None:
        return None
    try:
        found = msgspec.json.decode(value, type=Layout)
    except msgspec.DecodeError:
        return None  # as good as nothing: it is recorded anew, and everything is read back once
    return found if found.ingested == Names(config).topic("events_ingested") else None


def difference(layout: Layout | None, raw: int, ingested: int) -> str:
    """What is wrong with so many partitions of the two topics, "" for nothing."""
    if layout is None:
        return "no record says with how many partitions its duplicates were judged so far"
    if layout.partitions != raw:
        return (
            f"it has {raw} partitions, but its duplicates were judged with {layout.partitions}: it was grown "
            "past `pipelinectl topics apply`"
        )
    if ingested < raw:
        return f"it has {raw} partitions and {layout.ingested} only {ingested}"
    return ""


def write_layout(config: Config, layout: Layout) -> None:
    """Record it; on the brokers when it returns. Raises UnavailableError otherwise."""
    settings = producer_settings(config, "")
    del settings["transactional.id"], settings["transaction.timeout.ms"]
    problems: list[str] = []

    def told(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            problems.append(error.str())

    producer = Producer(settings | {"message.timeout.ms": round(_TIMEOUT * 1000)})
    topic = Names(config).topic("checkpoints")
    producer.produce(topic, msgspec.json.encode(layout), _key(config).encode(), on_delivery=told)
    if producer.flush(_TIMEOUT + 1) or problems:
        msg = (
            f"the layout of the event topics could not be recorded on {topic}: "
            f"{problems[0] if problems else 'no answer'}; run `pipelinectl topics apply` again"
        )
        raise UnavailableError(msg)

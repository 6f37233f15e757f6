"""What a stage is: records in, outcomes out, in any order, and nothing known of Kafka or tables.

The runtime (``workers.runtime``) and every stage keep this contract:

* ``submit(records)`` takes records; it must not wait for anything slow.
* ``poll(timeout)`` does work for at most about ``timeout`` seconds and returns the outcomes of whatever
  is finished: exactly one :class:`Outcome` for each submitted record, in any order.
* ``committed(outcomes)`` tells that these outcomes are durable: only now may what they needed be removed.
* ``forget(partitions)`` tells that the partitions belong to someone else now: records of theirs are
  dropped, no outcome is owed for them, and an outcome that comes all the same is ignored.
* ``give_up(records)`` tells that these records have been in hand for too long: their work is stopped, and
  each ends as a :class:`Failed` with a TransientError ``stuck`` (or as Done, where it is nearly there).
* ``drain()`` tells that the worker stops: what has not begun is dropped, what has begun is finished;
  from now on ``in_flight`` counts only that.
* ``assigned(partitions)`` tells which partitions are ours from now on, before their first record.
* ``close()`` gives everything back.

A stage says what happened; where a failure goes (retry tier, DLQ, pause) is decided in one place,
``workers.routing``, by the error's category.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec

from pipelined.errors import RecordError

__all__ = ["Done", "Failed", "Headers", "Outcome", "Output", "Partition", "Record", "Stage", "Stream"]

#: As the Kafka client hands them over; ours are always bytes.
Headers = list[tuple[str, str | bytes | None]]


class Partition(NamedTuple):
    """One partition of an input: the topic's name and the partition's number."""

    topic: str
    number: int


class Record(msgspec.Struct, frozen=True, gc=False):
    """One input record as a stage sees it. ``timestamp`` is its arrival, in ms since the epoch, UTC."""

    partition: Partition
    offset: int
    key: bytes | None
    value: bytes
    headers: Headers
    timestamp: int

    def header(self, name: str) -> str | None:
        """The last header of that name as text, or None."""
        for key, value in reversed(self.headers):
            if key == name and isinstance(value, bytes):
                return value.decode("utf-8", "replace")
        return None

    def log_fields(self) -> dict[str, object]:
        """What a log line about it has as its fields."""
        fields: dict[str, object] = {"offset": self.offset, "trace_id": self.header("trace_id")}
        fields["topic"], fields["partition"] = self.partition
        return {name: value for name, value in fields.items() if value is not None}


class Stream:
    """Where outputs go, by the name of the topic's section in the configuration."""

    RAW = "events_raw"
    INGESTED = "events_ingested"
    EVENTS_DLQ = "events_dlq"
    PENDING = "downloads_pending"
    CACHED = "downloads_cached"
    RESULTS = "downloads_results"
    RETRY = "downloads_retry"
    DLQ = "downloads_dlq"


class Output(msgspec.Struct, frozen=True, gc=False):
    """One message to produce. ``tier`` numbers the retry topic where the stream is ``Stream.RETRY``.

    ``partition`` and ``timestamp`` (ms) are the broker's choice where None.
    """

    stream: str
    key: bytes | None
    value: bytes
    headers: Headers
    partition: int | None = None
    timestamp: int | None = None
    tier: int = 0


class Done(msgspec.Struct, frozen=True, gc=False):
    """The record was handled; ``outputs`` are all it leads to (none is fine).

    ``kind`` says what became of it, for the counters: done, duplicate, moved or dead.
    """

    record: Record
    outputs: Sequence[Output] = ()
    kind: str = "done"


class Failed(msgspec.Struct, frozen=True):
    """The record could not be handled; ``error.category`` decides where it goes.

    ``task`` is the decoded download task, where the stage had one, so that nobody parses twice.
    """

    record: Record
    error: RecordError
    task: Any = None


Outcome = Done | Failed


class Stage(Protocol):
    """The contract in the module's text. ``name`` is the worker type; ``in_flight`` what is owed.

    ``waits`` says whether ``poll`` waits for something of its own (sockets, threads) while records are in
    flight; where it is False, ``poll`` returns at once and the runtime waits for records instead.
    """

    name: str
    waits: bool

    @property
    def in_flight(self) -> int:
        """Records submitted whose outcome has not been returned."""

    def assigned(self, partitions: Iterable[Partition]) -> None:
        """These partitions are ours from now on."""

    def forget(self, partitions: Iterable[Partition]) -> None:
        """These partitions are no longer ours; drop what belongs to them."""

    def submit(self, records: Sequence[Record]) -> None:
        """Take records; never wait."""

    def poll(self, timeout: float) -> list[Outcome]:
        """Work for at most about ``timeout`` seconds; return what is finished."""

    def committed(self, outcomes: Sequence[Outcome]) -> None:
        """These outcomes are durable."""

    def give_up(self, records: Sequence[Record]) -> None:
        """These have been in hand for too long: end them, soon and for now."""

    def drain(self) -> None:
        """The worker stops: drop what has not begun, finish what has."""

    def close(self) -> None:
        """Give everything back; nothing in flight is owed any more."""

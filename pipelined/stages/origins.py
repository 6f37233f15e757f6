"""Where events come from: which source brought each, and what each source brought that no other did."""

from __future__ import annotations

from collections.abc import Sequence

from pipelined.stages.contract import Headers, Outcome, Partition
from pipelined.stats import registry as metrics
from pipelined.stats.registry import SOURCES, Metric
from pipelined.stats.slots import Child

__all__ = ["LOCAL", "Brought", "Origin", "Tallies", "flag_of", "origin"]

#: The header that an event goes on with, and the flag of its source.
Origin = tuple[tuple[str, bytes], int]

#: A flag for each source that has a name; whatever else the header says is "other".
FLAGS = {source: 1 << place for place, source in enumerate(SOURCES)}
OTHER = FLAGS["other"]
#: Of flags that one source alone has: its name.
_ALONE = {flag: source for source, flag in FLAGS.items()}
_KNOWN: dict[bytes, Origin] = {
    source.encode(): (("source", source.encode()), flag) for source, flag in FLAGS.items()
}
#: Of an event that does not say where it comes from.
LOCAL = _KNOWN[b"local"]


def origin(headers: Headers) -> Origin:
    """Where an event comes from, by the last ``source`` among its headers."""
    for name, value in reversed(headers):
        if name == "source" and isinstance(value, bytes):
            known = _KNOWN.get(value)
            if known is not None:
                return known
            text = value.decode("utf-8", "replace")
            return (("source", text.encode()), OTHER) if text else LOCAL
    return LOCAL


def flag_of(source: bytes) -> int:
    """The flag of the source that a header names."""
    known = _KNOWN.get(source)
    return OTHER if known is None else known[1]


class Brought:
    """What the sources brought of one partition in one batch: numbers that are not committed yet."""

    __slots__ = ("counts",)

    def __init__(self) -> None:
        self.counts: dict[tuple[Metric, str], int] = {}

    def seen(self, flags: bytes | bytearray) -> None:
        """Events, by the flag of each; valid or not."""
        self._add(metrics.SOURCE_SEEN, flags)

    def admitted(self, flags: bytearray, told: Sequence[int]) -> None:
        """Valid events with what the memory told of each: who brought it before, 0 for nobody."""
        if not any(told):
            self._add(metrics.SOURCE_FIRST, flags)
            return
        first, again, found = bytearray(), bytearray(), bytearray()
        for flag, before in zip(flags, told, strict=True):
            if not before:
                first.append(flag)
                continue
            again.append(flag)
            if before in _ALONE and before != flag:
                found.append(before)
        self._add(metrics.SOURCE_FIRST, first)
        self._add(metrics.SOURCE_DUPLICATE, again)
        self._add(metrics.SOURCE_MATCHED, found)

    def _add(self, metric: Metric, flags: bytes | bytearray) -> None:
        for source, flag in FLAGS.items():
            if count := flags.count(flag):
                self.counts[metric, source] = self.counts.get((metric, source), 0) + count


class Tallies:
    """Holds what was brought until it is committed: what is never committed was never counted.

    The numbers of a partition's part of a batch stand for all its outcomes, and count with the last.
    """

    def __init__(self, stats: Child) -> None:
        self._stats = stats
        self._waiting: dict[int, tuple[Partition, Outcome, Brought]] = {}

    def hold(self, partition: Partition, last: Outcome, brought: Brought) -> None:
        """Count this when ``last`` is committed."""
        self._waiting[id(last)] = (partition, last, brought)

    def forget(self, gone: set[Partition]) -> None:
        """The next owner of these partitions counts what was not committed."""
        self._waiting = {
            number: waiting for number, waiting in self._waiting.items() if waiting[0] not in gone
        }

    def committed(self, outcomes: Sequence[Outcome]) -> None:
        """Count what these outcomes complete."""
        if not self._waiting:
            return
        for number in self._waiting.keys() & set(map(id, outcomes)):
            _, _, brought = self._waiting.pop(number)
            for (metric, source), count in brought.counts.items():
                self._stats.add(metric, count, source)

"""Routing that keeps work on this host: where the next worker of a record needs what lies here.

A downloaded file lies in the cache folder of the host that fetched it, so its record is best read by an
upload worker of that host. Which partitions the workers of this host have they tell each other in the shared
counters. Partitions move: who gets a record of another host's file has it fetched again.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import msgspec

from pipelined.config import Config
from pipelined.stages.contract import Done, Outcome, Output
from pipelined.stages.failures import Envelope
from pipelined.stats.slots import Child, SharedStats
from pipelined.workers.routing import Hold, Routed, Router

__all__ = ["NearRouter", "Neighbours", "Present"]


@dataclass(frozen=True, slots=True)
class Present:
    """The workers of a type that this host has now: their number may change while it is read."""

    stats: SharedStats
    worker: str

    def __iter__(self) -> Iterator[Child]:
        return (slot.child for slot in self.stats.slots if slot.worker == self.worker)


class Neighbours:
    """The partitions that workers of this host have, of a topic of ``count`` partitions."""

    def __init__(self, workers: Iterable[Child], count: int) -> None:
        self._workers = workers
        self._count = count

    def partition(self, key: bytes | None) -> int | None:
        """A partition that a worker of this host has, the same for a key as long as these are; else None.

        None also where this host has all of them: any will do.
        """
        own = sorted(itertools.chain.from_iterable(worker.held for worker in self._workers))
        if not own or len(own) >= self._count:
            return None
        return own[zlib.crc32(key or b"") % len(own)]


class NearRouter(Router):
    """Routes as ``Router`` does; outputs to ``stream`` go to the partition that ``near`` names for their key.

    ``near`` returns None where any partition will do.
    """

    def __init__(
        self,
        config: Config,
        envelope: Envelope,
        dead_stream: str,
        stream: str,
        near: Callable[[bytes | None], int | None],
    ) -> None:
        super().__init__(config, envelope, dead_stream)
        self._stream = stream
        self._near = near

    def route(self, outcome: Outcome) -> Done | Routed | Hold:
        """Decide, and say where."""
        routed = super().route(outcome)
        if isinstance(routed, Hold):
            return routed
        outputs = self._placed(routed.outputs)
        if isinstance(routed, Done):
            return Done(routed.record, outputs, routed.kind)
        return Routed(outputs, routed.kind)

    def _placed(self, outputs: Sequence[Output]) -> Sequence[Output]:
        placed = []
        for output in outputs:
            where = None
            if output.stream == self._stream and output.partition is None:
                where = self._near(output.key)
            placed.append(output if where is None else msgspec.structs.replace(output, partition=where))
        return placed

"""Routing that keeps work on this host: where the next worker of a record needs what lies here."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from pipelined.config import Config
from pipelined.stages.contract import Done, Outcome, Output
from pipelined.stages.failures import Envelope
from pipelined.workers.routing import Hold, Routed, Router

__all__ = ["NearRouter"]


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

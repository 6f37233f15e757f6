"""Free ports on the loopback interface."""

from __future__ import annotations

import contextlib
import socket
from dataclasses import dataclass

__all__ = ["Ports", "draw_ports"]


@dataclass(frozen=True)
class Ports:
    """The ports one node listens on, all on 127.0.0.1; ``sasl`` is unused without a SASL_SSL listener."""

    plain: int
    controller: int
    sasl: int


def draw_ports(nodes: int) -> list[Ports]:
    """Ports for each of ``nodes``, all different and free now (another process may still take one)."""
    with contextlib.ExitStack() as stack:
        numbers = []
        for _ in range(3 * nodes):
            listener = stack.enter_context(socket.socket())
            listener.bind(("127.0.0.1", 0))
            numbers.append(listener.getsockname()[1])
    return [Ports(*numbers[start : start + 3]) for start in range(0, len(numbers), 3)]

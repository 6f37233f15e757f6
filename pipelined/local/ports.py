"""Free ports on the loopback interface."""

from __future__ import annotations

import secrets
import socket
from dataclasses import dataclass

__all__ = ["Ports", "draw_ports"]

LISTENING = range(20_000, 32_000)


@dataclass(frozen=True)
class Ports:
    """The ports one node listens on, all on 127.0.0.1; ``sasl`` is unused without a SASL_SSL listener."""

    plain: int
    controller: int
    sasl: int


def draw_ports(nodes: int) -> list[Ports]:
    """Ports for each of ``nodes``, all different and free now (another process may still take one).

    They lie below the range the system draws the ports of outgoing connections from: there a client that
    tries to reach a stopped broker may come to hold the broker's port itself.
    """
    numbers: list[int] = []
    while len(numbers) < 3 * nodes:
        number = secrets.choice(LISTENING)
        if number not in numbers and _free(number):
            numbers.append(number)
    return [Ports(*numbers[start : start + 3]) for start in range(0, len(numbers), 3)]


def _free(number: int) -> bool:
    with socket.socket() as listener:
        listener.setsockopt(
            socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
        )  # as Java does: TIME_WAIT is no hindrance
        try:
            listener.bind(("127.0.0.1", number))
        except OSError:
            return False
    return True

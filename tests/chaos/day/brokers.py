"""Brokers started again: their logs are kept, and coordinators that their own bug leaves dead are told of."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence

from pipelined.local.node import Node

__all__ = ["dead_coordinators", "launch"]

_READY_S = 60.0
_SETTLE_S = 1.5
_ATTEMPTS = 3
#: What a broker that is started again tells beside warnings: whether its coordinators are back.
_LOGGED = """
logger.coordinator.name=org.apache.kafka.coordinator.common.runtime
logger.coordinator.level=info
"""
_SAID = re.compile(
    r"CoordinatorRuntime: .*?(Failed to load|Finished loading|[Uu]nloading) .*?(__consumer_offsets-\d+)"
)


def launch(nodes: Sequence[Node], tell: Callable[[str], None]) -> None:
    """Start brokers that do not run, and wait until they serve.

    A broker that comes back as the leader of its partitions, and is fenced while it still loads a
    coordinator, may leave that coordinator failed for good: the late end of the first load is taken for
    that of the second (Kafka 4.3's CoordinatorRuntime looks the coordinator up by its partition alone). No
    group of the partition is served until a broker is restarted; so it is, as an operator would.
    """
    for attempt in range(1, _ATTEMPTS + 1):
        for node in nodes:
            _start(node)
        for node in nodes:
            node.wait_ready(time.monotonic() + _READY_S)
        time.sleep(_SETTLE_S)
        failed = {node: found for node in nodes if (found := dead_coordinators(_log(node)))}
        if not failed or attempt == _ATTEMPTS:
            return
        for node, found in failed.items():
            tell(f"  broker {node.index} is restarted: Kafka left {', '.join(found)} without a coordinator")
            node.stop()
        nodes = [*failed]


def dead_coordinators(log: str) -> list[str]:
    """The partitions whose coordinator failed to load and was left so, by the log of a broker."""
    last = {match[2]: match[1] for match in _SAID.finditer(log)}
    return sorted(partition for partition, said in last.items() if said == "Failed to load")


def _start(node: Node) -> None:
    if node.running:
        return
    for log in node.folder.glob("*.log"):
        # The node begins its logs anew; what it said before must be there if the day fails.
        with log.with_suffix(".before").open("ab") as kept:
            kept.write(log.read_bytes())
    with (node.folder / "log4j2.properties").open("r+") as logging:
        if _LOGGED not in logging.read():
            logging.write(_LOGGED)
    node.launch()


def _log(node: Node) -> str:
    return (node.folder / "server.log").read_text(errors="replace")

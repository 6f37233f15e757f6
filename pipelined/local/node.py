"""One broker of the local Kafka, or its controller: its folder, its process, how to end and hold it."""

from __future__ import annotations

import base64
import contextlib
import signal
import socket
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from pipelined.errors import UnavailableError
from pipelined.local.guard import Guard
from pipelined.local.kafka_config import (
    Sasl,
    controller_properties,
    log4j_properties,
    server_properties,
    write_properties,
)
from pipelined.local.ports import Ports

if TYPE_CHECKING:
    from pipelined.local.installation import Installation

__all__ = ["Controller", "Node", "PortClashError", "draw_id"]

READY_SECONDS = 60.0
STOP_SECONDS = 15.0
LOGS = ("console.log", "server.log")
LOG_LINES_SHOWN = 15
ADDRESS_IN_USE = "Address already in use"


class PortClashError(UnavailableError):
    """A port of the node was taken by another process between its choice and its use."""


def draw_id() -> str:
    """A new random id as Kafka writes them. Never one that begins with "-": tools take it for an option."""
    while (drawn := base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")).startswith("-"):
        pass
    return drawn


class Node:
    """One broker, a single one controller as well. Made by a Cluster; number ``index`` of it."""

    def __init__(self, index: int, folder: Path, guard: Guard, installation: Installation) -> None:
        self.index = index
        self.folder = folder
        self.bootstrap = ""
        self._guard = guard
        self._installation = installation
        self._pid: int | None = None

    @property
    def pid(self) -> int:
        """The process id of the broker started last. UnavailableError before the first start."""
        if self._pid is None:
            raise UnavailableError(f"node {self.index} of the local Kafka was not started")
        return self._pid

    @property
    def running(self) -> bool:
        """Whether the process is there (a paused one is)."""
        return self._pid is not None and self._guard.poll(self._pid) is None

    def configure(self, ports: Sequence[Ports], sasl: Sasl | None) -> None:
        """Write the node's files for these ports."""
        self.bootstrap = f"127.0.0.1:{ports[self.index].plain}"
        self._write(server_properties(self.index, ports, self.folder / "data", sasl))

    def _write(self, properties: dict[str, str]) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_properties(self.folder / "server.properties", properties)
        write_properties(self.folder / "log4j2.properties", log4j_properties(self.folder / "server.log"))

    def format(self, cluster_id: str) -> None:
        """Format the data folder, unless it was formatted before."""
        data = self.folder / "data"
        if not (data / "meta.properties").exists():
            self._installation.format(data, cluster_id, self.index)

    def launch(self) -> None:
        """Start the process and return at once."""
        if self.running:
            return
        for log in LOGS:
            (self.folder / log).unlink(missing_ok=True)
        self._pid = self._guard.start(
            self._installation.broker_command(self.folder), output=self.folder / "console.log"
        )

    def wait_ready(self, deadline: float, peers: Sequence[Node] = ()) -> None:
        """Wait until the node answers a client and knows itself and all ``peers`` as live brokers.

        PortClashError when one of them ended because a port was taken; UnavailableError with the end of
        its log when one ended otherwise or the node is not ready at ``deadline`` (``time.monotonic()``).
        """
        host, port = self.bootstrap.split(":")
        wanted = {node.index for node in (self, *peers)}
        while not self._listens(host, int(port)):
            self._check(deadline, peers)
            time.sleep(0.02)
        client = AdminClient(
            {
                "bootstrap.servers": self.bootstrap,
                "log_level": 0,
                "reconnect.backoff.ms": 20,
                "reconnect.backoff.max.ms": 100,
            }
        )
        while True:
            with contextlib.suppress(KafkaException):
                if wanted <= set(client.list_topics(timeout=1).brokers):
                    return
            self._check(deadline, peers)
            time.sleep(0.02)

    def start(self) -> None:
        """Start the node again, on the same ports and data, and wait until it serves."""
        self.launch()
        self.wait_ready(time.monotonic() + READY_SECONDS)

    def stop(self) -> None:
        """Stop the node as an operator would (SIGTERM) and wait; killed when that takes too long."""
        if self.running:
            self.terminate()
            if self._guard.wait(self.pid, STOP_SECONDS) is None:
                self.kill()

    def terminate(self) -> None:
        """Ask the node to stop (SIGTERM) and return at once."""
        self._guard.signal(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL, and wait until the process is gone."""
        if self.running:
            self._guard.signal(self.pid, signal.SIGKILL)
            self._guard.wait(self.pid, STOP_SECONDS)

    def pause(self) -> None:
        """SIGSTOP, and wait until every thread has stopped: alive, and silent."""
        self._guard.signal(self.pid, signal.SIGSTOP)
        while any(_state(thread) != "T" for thread in Path(f"/proc/{self.pid}/task").iterdir()):
            time.sleep(0.01)

    def resume(self) -> None:
        """SIGCONT after pause()."""
        self._guard.signal(self.pid, signal.SIGCONT)

    def log_tail(self, lines: int = LOG_LINES_SHOWN) -> str:
        """The last lines the broker printed and logged."""
        found: list[str] = []
        for name in LOGS:
            with contextlib.suppress(FileNotFoundError):
                found += (self.folder / name).read_text(errors="replace").splitlines()[-lines:]
        return "\n".join(found)

    def _listens(self, host: str, port: int) -> bool:
        with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=1):
            return True
        return False

    def _check(self, deadline: float, peers: Sequence[Node]) -> None:
        for node in (self, *peers):
            if not node.running:
                raise node.failure()
        if time.monotonic() > deadline:
            raise UnavailableError(
                f"node {self.index} of the local Kafka is not ready in time; its log ends:\n{self.log_tail()}"
            )

    def failure(self) -> UnavailableError:
        """Why the node ended, by its log."""
        if ADDRESS_IN_USE in self.log_tail(lines=10_000):
            return PortClashError(
                f"a port of node {self.index} of the local Kafka is taken by another process"
            )
        code = self._guard.poll(self.pid)
        return UnavailableError(
            f"node {self.index} of the local Kafka ended with {code}; its log ends:\n{self.log_tail()}"
        )


def _state(thread: Path) -> str:
    """The state letter of a thread of /proc; that of one that just ended is "T" as well."""
    try:
        return (thread / "stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "T"


class Controller(Node):
    """The controller of a cluster of several brokers. It serves no clients."""

    def configure(self, ports: Sequence[Ports], sasl: Sasl | None) -> None:
        """Write its files for these ports."""
        del sasl  # it has no listener for clients
        self.bootstrap = f"127.0.0.1:{ports[0].controller}"
        self._write(controller_properties(ports, self.folder / "data"))

    def wait_ready(self, deadline: float, peers: Sequence[Node] = ()) -> None:
        """Wait until it listens; as :meth:`Node.wait_ready` otherwise."""
        host, port = self.bootstrap.split(":")
        while not self._listens(host, int(port)):
            self._check(deadline, peers)
            time.sleep(0.02)

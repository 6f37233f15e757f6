"""The local Kafka: the real Apache Kafka on this machine, for a first run, the tests and the benchmarks.

``python -m pipelined.local.kafka [--nodes N] [--sasl] [--directory D]`` starts a cluster, prints one line of
JSON about it, and ends it when stdin closes or SIGTERM or SIGINT comes.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import logging
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pipelined.errors import ConfigError, UnavailableError
from pipelined.local.certificates import make_certificate
from pipelined.local.guard import Guard
from pipelined.local.installation import ensure_kafka
from pipelined.local.jars import Progress
from pipelined.local.kafka_config import SASL_USER, Sasl
from pipelined.local.node import READY_SECONDS, STOP_SECONDS, Controller, Node, PortClashError, draw_id
from pipelined.local.ports import Ports, draw_ports

__all__ = ["SASL_USER", "Cluster", "Node", "ensure_kafka"]

PORT_ATTEMPTS = 5

_log = logging.getLogger("pipelined.local")


class Cluster:
    """A running Kafka of ``nodes`` brokers on 127.0.0.1, three with a controller beside; a context manager.

    Without ``directory`` the data is in a temporary folder that goes with the cluster; with it the data stays
    there and the next start goes on with it. ``sasl`` adds a SASL_SSL listener that presents itself as an
    Event Hub does; with one node, ``told_port`` is where its clients are sent to, for something in between
    (``sasl_bootstrap`` is the listener itself). The brokers never outlive this process, however it ends.
    ``cache`` and ``progress`` as in ``ensure_kafka``; ``draw`` chooses the ports.
    """

    def __init__(
        self,
        *,
        nodes: int = 1,
        sasl: bool = False,
        told_port: int | None = None,
        directory: Path | None = None,
        cache: Path | None = None,
        progress: Progress | None = None,
        draw: Callable[[int], list[Ports]] = draw_ports,
    ) -> None:
        if nodes not in {1, 3}:
            raise ConfigError(f"a local Kafka has 1 or 3 nodes, not {nodes}")
        #: The brokers, and the controller where it is a process of its own.
        self.nodes: list[Node] = []
        self.controller: Controller | None = None
        self._count = nodes
        self._with_sasl = sasl
        self._told_port = told_port
        self._directory = directory
        self._cache = cache
        self._progress = progress
        self._draw = draw
        self._guard: Guard | None = None
        self._sasl: Sasl | None = None
        self._ports: list[Ports] = []

    @property
    def bootstrap(self) -> str:
        """The addresses of the PLAINTEXT listeners, as ``bootstrap.servers`` wants them."""
        return ",".join(f"127.0.0.1:{ports.plain}" for ports in self._ports)

    @property
    def sasl_bootstrap(self) -> str:
        """The addresses of the SASL_SSL listeners; empty without ``sasl``."""
        return ",".join(f"127.0.0.1:{ports.sasl}" for ports in self._ports) if self._sasl else ""

    @property
    def connection_string(self) -> str:
        """The password of the user ``$ConnectionString``; empty without ``sasl``."""
        return self._sasl.connection_string if self._sasl else ""

    @property
    def ca_path(self) -> Path | None:
        """The certificate (PEM) clients of the SASL_SSL listener are to trust, None without ``sasl``."""
        return self._sasl.certificate.ca if self._sasl else None

    @property
    def sasl_settings(self) -> dict[str, str]:
        """The librdkafka settings of a client of the SASL_SSL listener, its address included."""
        return {
            "bootstrap.servers": self.sasl_bootstrap,
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": "PLAIN",
            "sasl.username": SASL_USER,
            "sasl.password": self.connection_string,
            "ssl.ca.location": str(self.ca_path or ""),
        }

    def start(self) -> None:
        """Start every node and return when a client is answered by each of them.

        UnavailableError when something cannot be fetched, a broker ends, or 60 s are over; nothing is left
        running then.
        """
        if self._guard:
            raise UnavailableError("this local Kafka is running already; stop it first")
        installation = ensure_kafka(self._cache, self._progress)
        folder = self._directory or Path(tempfile.gettempdir()) / f"pipelined-kafka-{secrets.token_hex(6)}"
        self._guard = Guard(remove=None if self._directory else folder)
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            state = self._state(folder)
            if self._with_sasl:
                certificate = make_certificate(folder, installation.java)
                self._sasl = Sasl(certificate, state["connection_string"], self._told_port)
            self.nodes = [
                Node(index, folder / f"node-{index}", self._guard, installation)
                for index in range(self._count)
            ]
            if self._count > 1:
                self.controller = Controller(self._count, folder / "controller", self._guard, installation)
            self._start_nodes(folder, state)
        except BaseException:
            self._kill()
            raise

    def stop(self) -> None:
        """Stop every node. With a directory they stop cleanly; a temporary one is removed with all in it."""
        if self._directory:
            # The controller last: brokers tell it that they go.
            for nodes in (self.nodes, [self.controller] if self.controller else []):
                _stop([node for node in nodes if node.running])
        self._kill()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _kill(self) -> None:
        if self._guard:
            self._guard.close()
        self._guard = None

    def _state(self, folder: Path) -> dict[str, Any]:
        """Who the cluster is: read from its folder, or drawn when it is new there."""
        path = folder / "cluster.json"
        if path.exists():
            state: dict[str, Any] = json.loads(path.read_text())
            if len(state["ports"]) != self._count:
                raise ConfigError(
                    f"the local Kafka in {folder} has {len(state['ports'])} nodes, not {self._count}"
                )
            return state
        key = base64.b64encode(secrets.token_bytes(32)).decode()
        return {
            "cluster_id": draw_id(),
            "connection_string": (
                f"Endpoint=sb://localhost/;SharedAccessKeyName=local;SharedAccessKey={key}"
            ),
            "ports": [asdict(ports) for ports in self._draw(self._count)],
        }

    def _start_nodes(self, folder: Path, state: dict[str, Any]) -> None:
        deadline = time.monotonic() + READY_SECONDS
        for attempt in range(1, PORT_ATTEMPTS + 1):
            self._ports = [Ports(**ports) for ports in state["ports"]]
            self._save(folder, state)
            processes = [self.controller, *self.nodes] if self.controller else self.nodes
            try:
                for node in processes:
                    node.configure(self._ports, self._sasl)
                    node.format(state["cluster_id"])
                    node.launch()
                for node in processes:
                    node.wait_ready(deadline, self.nodes)
            except PortClashError:
                for node in processes:
                    node.kill()
                if attempt == PORT_ATTEMPTS:
                    raise
                _log.info(
                    "A port was taken before the local Kafka had it; trying others",
                    extra={"attempt": attempt},
                )
                state["ports"] = [asdict(ports) for ports in self._draw(self._count)]
            else:
                return

    def _save(self, folder: Path, state: dict[str, Any]) -> None:
        new = folder / "cluster.new"
        new.touch(mode=0o600)
        new.write_text(json.dumps(state))
        new.replace(folder / "cluster.json")


def _stop(nodes: Sequence[Node]) -> None:
    for node in nodes:
        node.resume()
        node.terminate()
    deadline = time.monotonic() + STOP_SECONDS
    while any(node.running for node in nodes) and time.monotonic() < deadline:
        time.sleep(0.02)


def main(arguments: list[str] | None = None) -> int:
    """Run a cluster until stdin closes or a signal comes; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m pipelined.local.kafka", description=main.__doc__)
    parser.add_argument("--nodes", type=int, default=1, choices=(1, 3))
    parser.add_argument("--sasl", action="store_true")
    parser.add_argument("--directory", type=Path)
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    cluster = Cluster(nodes=options.nodes, sasl=options.sasl, directory=options.directory)
    try:
        with contextlib.suppress(KeyboardInterrupt), cluster:
            about = {
                "bootstrap": cluster.bootstrap,
                "pids": [node.pid for node in cluster.nodes],
                "sasl_bootstrap": cluster.sasl_bootstrap,
                "connection_string": cluster.connection_string,
                "ca_path": str(cluster.ca_path or ""),
            }
            sys.stdout.write(json.dumps(about) + "\n")
            sys.stdout.flush()
            sys.stdin.read()
    except (UnavailableError, ConfigError) as error:
        sys.stderr.write(f"{error}\n")
        return int(error.exit_code)
    return 0


if __name__ == "__main__":
    sys.exit(main())

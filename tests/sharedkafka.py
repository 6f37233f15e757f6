"""One real Kafka for a whole test run, whatever the number of xdist workers.

The process that runs pytest (under xdist the controller) owns it and starts it when the first test asks;
workers ask over a socket. It ends with its owner. ``KAFKA_BOOTSTRAP`` names a cluster to use instead.
"""

from __future__ import annotations

import os
import threading
from multiprocessing.connection import Client, Listener

from pipelined.errors import UnavailableError
from pipelined.local.kafka import Cluster


class SharedKafka:
    """The owner's side."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cluster: Cluster | None = None
        self._failure: str | None = None
        self._listener: Listener | None = None

    def bootstrap(self) -> tuple[str, str | None]:
        """The address of the cluster and None, or "" and why there is none. Started at the first call."""
        with self._lock:
            if self._cluster is None and self._failure is None:
                cluster = Cluster()
                try:
                    cluster.start()
                except UnavailableError as error:
                    self._failure = str(error)
                else:
                    self._cluster = cluster
            return (self._cluster.bootstrap if self._cluster else "", self._failure)

    def serve(self) -> str:
        """The address of the socket at which workers ask."""
        with self._lock:
            if self._listener is None:
                self._listener = Listener(family="AF_UNIX", backlog=64)
                threading.Thread(target=self._answer, args=[self._listener], daemon=True).start()
            assert isinstance(self._listener.address, str)
            return self._listener.address

    def close(self) -> None:
        """Stop the cluster."""
        with self._lock:
            if self._cluster:
                self._cluster.stop()

    def _answer(self, listener: Listener) -> None:
        while True:
            with listener.accept() as connection:
                connection.send(self.bootstrap())


def ask(address: str) -> tuple[str, str | None]:
    """A worker's side: what ``SharedKafka.bootstrap`` says."""
    with Client(address) as connection:
        bootstrap, failure = connection.recv()
        return bootstrap, failure


def configured() -> str:
    """The cluster the environment names, "" when it names none."""
    return os.environ.get("KAFKA_BOOTSTRAP", "")

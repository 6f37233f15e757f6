"""The installed local Kafka: its jars in the cache folder, and what is derived from them once.

Derived are the bootstrap records of a formatted data folder (by Kafka's own StorageTool; they name no
cluster and no node, so each new node gets a copy instead of a Java start) and Java's AOT cache, which
halves a broker's start. Both are made under a file lock beside their final place and renamed into it.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import signal
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from pipelined.errors import UnavailableError
from pipelined.local.guard import Guard
from pipelined.local.jars import LOCK, Progress, cache_folder, fetch_jars, locked, read_lock
from pipelined.local.java import Java, find_java, keep_java
from pipelined.local.kafka_config import java_command, write_properties
from pipelined.local.node import Node, draw_id
from pipelined.local.ports import draw_ports

__all__ = ["Installation", "ensure_kafka"]

BOOTSTRAP = "bootstrap.checkpoint"
FORMAT_SECONDS = 60.0
TRAINING_SECONDS = 120.0

_log = logging.getLogger("pipelined.local")


@dataclass(frozen=True)
class Installation:
    """A Kafka that can be started: Java, the jars, the options, and the bootstrap records of a new node."""

    java: Java
    jars: Sequence[Path]
    bootstrap: Path
    options: Sequence[str] = ()

    def broker_command(self, folder: Path) -> list[str]:
        """The command that runs the broker configured in ``folder``."""
        main = ["kafka.Kafka", str(folder / "server.properties")]
        return java_command(self.java, self.jars, main, folder=folder, options=self.options)

    def format(self, data: Path, cluster_id: str, node: int) -> None:
        """Make ``data`` what StorageTool makes of an empty folder: the records, and who the node is."""
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        shutil.copyfile(self.bootstrap, data / BOOTSTRAP)
        meta = data / "meta.properties"
        new = meta.with_suffix(".new")
        identity = {"version": "1", "cluster.id": cluster_id, "node.id": str(node), "directory.id": draw_id()}
        write_properties(new, identity)
        new.replace(meta)  # last: its presence says that the folder is formatted


def ensure_kafka(cache: Path | None = None, progress: Progress | None = None) -> Installation:
    """Everything the local Kafka needs, fetched and derived when it is not there yet; offline after that.

    ``cache`` is the cache folder (default: ``cache_folder()``); ``progress`` gets what is done, how much of
    it, and how much there is. UnavailableError, one line, says what could not be had.
    """
    found = find_java()
    folder = (cache or cache_folder()) / f"kafka-{hashlib.sha256(LOCK.read_bytes()).hexdigest()[:12]}"
    jars = fetch_jars(folder / "libs", read_lock(), progress)
    with locked(folder / ".lock"):
        java = keep_java(found, folder)
    plain = Installation(java, jars, folder / BOOTSTRAP)
    aot = folder / f"java-{java.fingerprint}.aot"
    if not (plain.bootstrap.exists() and aot.exists()):
        with locked(folder / ".lock"):
            _derive(plain, aot, folder, progress)
    return Installation(java, jars, plain.bootstrap, [f"-XX:AOTCache={aot}"] if aot.exists() else [])


def _derive(plain: Installation, aot: Path, folder: Path, progress: Progress | None) -> None:
    """Make the bootstrap records and the AOT cache, those that are missing."""
    steps = "preparing Apache Kafka"
    scratch = Path(tempfile.mkdtemp(dir=folder, prefix=".derive-"))
    scratch.rmdir()  # the guard makes it, and removes it however this process ends
    guard = Guard(remove=scratch)
    try:
        if progress:
            progress(steps, 0, 2)
        if not plain.bootstrap.exists():
            _format_once(plain, guard, scratch)
        if progress:
            progress(steps, 1, 2)
        if not aot.exists():
            _train(plain, aot, guard, scratch)
        if progress:
            progress(steps, 2, 2)
    finally:
        guard.close()


def _format_once(plain: Installation, guard: Guard, scratch: Path) -> None:
    folder = scratch / "format"
    node = Node(0, folder, guard, plain)
    node.configure(draw_ports(1), None)
    config = str(folder / "server.properties")
    main = ["kafka.tools.StorageTool", "format", "-t", draw_id(), "-c", config]
    command = java_command(plain.java, plain.jars, main, folder=folder)
    code = guard.run(command, output=folder / "console.log", seconds=FORMAT_SECONDS)
    if code:
        raise UnavailableError(f"Kafka's StorageTool ended with {code}:\n{node.log_tail()}")
    (folder / "data" / BOOTSTRAP).replace(plain.bootstrap)


def _train(plain: Installation, aot: Path, guard: Guard, scratch: Path) -> None:
    """Run a broker through its usual work; Java writes the AOT cache when it ends."""
    output = scratch / aot.name
    training = Installation(plain.java, plain.jars, plain.bootstrap, [f"-XX:AOTCacheOutput={output}"])
    node = Node(0, scratch / "training", guard, training)
    node.configure(draw_ports(1), None)
    node.format(draw_id())
    node.launch()
    node.wait_ready(time.monotonic() + TRAINING_SECONDS)
    _exercise(node.bootstrap)
    guard.signal(node.pid, signal.SIGTERM)
    code = guard.wait(node.pid, TRAINING_SECONDS)
    if output.exists():
        output.replace(aot)
        for stale in set(aot.parent.glob("java-*.aot")) - {aot}:
            stale.unlink()  # of a Java that is not used any more
    else:
        _log.warning(
            "Java wrote no AOT cache; the local Kafka starts slower without it",
            extra={"exit_code": code, "log": node.log_tail()},
        )


def _exercise(bootstrap: str) -> None:
    """What every run does: create a topic, produce in a transaction, consume in a group and commit."""
    common: dict[str, str | int | float | bool] = {"bootstrap.servers": bootstrap, "log_level": 0}
    admin = AdminClient(common)
    for created in admin.create_topics([NewTopic("training", 1)]).values():
        created.result(30)
    producer = Producer({**common, "transactional.id": "training"})
    producer.init_transactions(30)
    producer.begin_transaction()
    for number in range(100):
        producer.produce("training", b"x" * 1000, str(number))
    producer.commit_transaction(30)
    settings = {
        **common,
        "group.id": "training",
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
    }
    consumer = Consumer(settings)
    consumer.subscribe(["training"])
    deadline = time.monotonic() + 30
    read = 0
    while read < 100 and time.monotonic() < deadline:
        read += len(consumer.consume(100, 0.2))
    consumer.commit(asynchronous=False)
    consumer.close()

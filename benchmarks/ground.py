"""What every benchmark stands on: a real Kafka, a folder, configurations, the daemon, and bare loops."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from confluent_kafka import Producer

from pipelined.config import Config, load
from pipelined.kafka import topics
from pipelined.kafka.settings import Names
from pipelined.local.kafka import Cluster
from pipelined.supervisor.protocol import ask

__all__ = ["PARTITIONS", "Daemon", "Ground", "Message", "bare", "fill", "run_bare", "wait_for"]

PARTITIONS = 4
_ROOT = Path(__file__).parents[1]

#: Key, value, headers.
Message = tuple[bytes, bytes, list[tuple[str, str | bytes | None]]]


class Ground:
    """A Kafka of one or three nodes with the package's settings, for as long as the benchmark runs."""

    def __init__(self, folder: Path, nodes: int = 1) -> None:
        self.folder = folder
        # With a folder of its own a node keeps its data and may be killed and started again.
        self.cluster = Cluster() if nodes == 1 else Cluster(nodes=nodes, directory=folder / "kafka")
        self._copies = (1, 1) if nodes == 1 else (3, 2)
        self._count = 0

    def __enter__(self) -> Self:
        self.cluster.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cluster.stop()

    def config(
        self,
        *,
        inputs: dict[str, str] | None = None,
        files_url: str = "http://127.0.0.1:1",
        folder: Path | None = None,
        kafka: str = "",
        tables: str = "",
        more: str = "",
    ) -> Path:
        """A new configuration with a domain, folders and topics of its own; the topics are made.

        ``inputs`` gives streams an existing topic by name, ``kafka`` and ``tables`` are added to the
        sections of that name, ``more`` to the end of the text.
        """
        self._count += 1
        names = inputs or {}
        place = (folder or self.folder) / f"run{self._count}"
        place.mkdir(parents=True)
        replicas, in_sync = self._copies
        streams = "events_raw events_ingested downloads_pending downloads_cached downloads_results".split()
        sections = "".join(
            f"[topics.{stream}]\npartitions = {PARTITIONS}\n"
            + (f'name = "{names[stream]}"\n' if stream in names else "")
            for stream in streams
        )
        path = place / "pipelined.toml"
        path.write_text(
            f'domain = "run{self._count}"\nstate_dir = "{place}/state"\ncache_dir = "{place}/cache"\n'
            f'runtime_dir = "{place}/state"\n'
            f'[kafka]\nbootstrap = "{self.cluster.bootstrap}"\nhost = "bench"\n{kafka}'
            f"[topics]\nreplication_factor = {replicas}\nmin_insync_replicas = {in_sync}\n{sections}"
            f'[urls]\nallowed_hosts = ["127.0.0.1"]\nallowed_ports = [{urlsplit(files_url).port}]\n'
            'allow_http = true\nallowed_networks = ["127.0.0.0/8"]\n'
            f'[upload]\nurl = "file://{place}/files"\n[tables]\nurl = "file://{place}/tables"\n{tables}'
            f"[endpoint]\nport = 0\n{more}"
        )
        config = load(path, environ={}).config
        topics.apply(config, topics.plan(config))
        return path

    def fill(self, stream: str, messages: Iterable[Message]) -> str:
        """Put messages on a new topic of a stream's kind, evenly; returns its name."""
        config = load(self.config(), environ={}).config
        topic = Names(config).topic(stream)
        fill(config.kafka.bootstrap, topic, messages)
        return topic


def fill(bootstrap: str, topic: str, messages: Iterable[Message]) -> None:
    """Put messages on a topic that is there, evenly on its partitions."""
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "compression.type": "lz4",
            "enable.idempotence": True,
            "linger.ms": 20,
            "queue.buffering.max.messages": 1_000_000,
        }
    )
    for number, (key, value, headers) in enumerate(messages):
        while True:
            try:
                producer.produce(topic, value, key, partition=number % PARTITIONS, headers=headers)
                break
            except BufferError:
                producer.poll(0.1)
    if producer.flush(60):
        raise RuntimeError(f"{topic} could not be filled")


class Daemon:
    """The real daemon with some of its worker types, in the background; drained and stopped at the end.

    ``program`` stands for ``python -m pipelined`` where it is to be another, ``output`` is where its log
    goes where that is not a file.
    """

    def __init__(
        self,
        path: Path,
        *workers: str,
        program: Sequence[str | Path] = (sys.executable, "-m", "pipelined"),
        output: int | None = None,
    ) -> None:
        self.config: Config = load(path, environ={}).config
        self._log = path.with_suffix(".log")
        self._output = output
        chosen = [word for worker in workers for word in ("--worker", worker)]
        self._command = [*map(str, program), "--config", str(path), "run", *chosen]

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            output = log if self._output is None else self._output
            self.process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=_ROOT
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        if error is not None or code != 0:
            tail = "\n".join(self._log.read_text(errors="replace").splitlines()[-15:])
            sys.stderr.write(f"the daemon ended with exit code {code}; the end of {self._log}:\n{tail}\n")
        if error is None and code != 0:
            raise RuntimeError(f"the daemon ended with exit code {code}")

    def workers(self) -> list[dict[str, Any]]:
        """The status of every worker process."""
        if self.process.poll() is not None:
            raise RuntimeError("the daemon has ended")
        reply = ask(self.config.runtime_dir, {"cmd": "status"})
        workers: list[dict[str, Any]] = reply["status"]["workers"]
        return workers

    def worker(self, kind: str) -> dict[str, Any]:
        """The status of the only process of a worker type."""
        return next(worker for worker in self.workers() if worker["type"] == kind)

    def ready(self) -> None:
        """Wait until every worker is ready."""

        def all_ready() -> bool:
            try:
                return all(worker["ready"] for worker in self.workers())
            except OSError:
                return False

        wait_for((Path(self.config.runtime_dir) / "control.sock").exists, "the daemon")
        wait_for(all_ready, "the workers")


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 60.0, every: float = 0.02) -> None:
    """Wait until a condition holds; RuntimeError when it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"waited {seconds:g} s in vain for {what}")
        time.sleep(every)


@contextlib.contextmanager
def bare(module: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """A bare loop in a process of its own: ``python -m benchmarks.MODULE ARGUMENTS``."""
    process = subprocess.Popen(
        [sys.executable, "-m", f"benchmarks.{module}", *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=_ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        with process:
            yield process
    finally:
        process.kill()


def run_bare(module: str, *arguments: object) -> dict[str, Any]:
    """Run a bare loop to its end; the JSON of its last line."""
    with bare(module, *arguments) as process:
        output = process.communicate(timeout=300)[0]
    if process.returncode:
        raise RuntimeError(f"benchmarks.{module} ended with {process.returncode}")
    found: dict[str, Any] = json.loads(output.splitlines()[-1])
    return found

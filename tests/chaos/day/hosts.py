"""What a day runs on: brokers, a file server, and hosts: daemons that share a cluster, tables and a store."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

from chaos.day.brokers import launch
from chaos.day.clock import Clock
from chaos.day.disks import Disk
from chaos.day.plan import PARTITIONS, SESSION_S, Plan
from flow import Flow, pipelined_command
from pipelined.errors import UnavailableError
from pipelined.local.eventhouse.settings import DEFAULT_MAX_RECORDS
from pipelined.local.fileserver import FileServer
from pipelined.local.kafka import Cluster
from pipelined.local.upstream import Upstream
from pipelined.supervisor.protocol import ask
from waiting import until

__all__ = ["Ground", "Host"]

_STATUS_S = 2.0
_CACHE_BYTES, _TABLE_BYTES, _LOG_BYTES = 256 << 20, 4 << 30, 1 << 30

#: On top of the short waits of every test's installation.
_SETTINGS: Mapping[str, Any] = {
    "kafka.session_timeout_s": SESSION_S,
    "kafka.transaction_timeout_s": SESSION_S * 2 / 3,
    "download.connect_timeout_s": 3.0,
    "retry.delays_s": [0.5, 1.0, 2.0, 4.0],
    "tables.flush_seconds": 0.5,
    # One host stands for all the hosts of production here, and has all of their faults.
    "breaker.failures": 200,
    "breaker.dlq_run": 1_000_000,
    "breaker.dlq_window": 1_000_000,
    # Killed every few seconds: half a second up counts as healthy, and nothing is given up.
    "supervisor.healthy_s": 0.5,
    "supervisor.backoff_max_s": 2.0,
    "supervisor.max_restarts": 100_000,
}


class Host(Flow):
    """One machine: a daemon with folders, a cache and a clock of its own."""

    def __init__(self, ground: Ground, number: int, hang_s: Mapping[str, float]) -> None:
        self.name = f"h{number + 1}"
        folder = ground.folder / self.name
        folder.mkdir(parents=True)
        replicas = 3 if ground.plan.brokers == 3 else 1
        super().__init__(
            folder,
            ground.cluster.bootstrap,
            ground.domain,
            ground.files.url,
            {
                **_SETTINGS,
                "kafka.host": self.name,
                "topics.replication_factor": replicas,
                "topics.min_insync_replicas": 2 if replicas == 3 else 1,
                "upload.url": f"file://{ground.folder}/files",
                "tables.url": f"file://{ground.folder}/tables",
                **ground.upstream.settings,
                **{f"workers.{name.replace('-', '_')}.hang_s": limit for name, limit in hang_s.items()},
            },
        )
        self.cache = Disk(folder / "cache", _CACHE_BYTES)
        self.logs = Disk(folder / "log", _LOG_BYTES)
        self.log_file = folder / "log" / "daemon.log"
        self.clock = Clock(folder / "clock")
        self.environment |= self.clock.environment
        self.runtime_dir = f"{folder}/state"
        self.up = threading.RLock()

    def start(self, *, wait: bool = False) -> Self:
        """Start the daemon, unless it runs; also where its log cannot be written."""
        if self.daemon is None or self.daemon.poll() is not None:
            self.daemon = self.popen(pipelined_command("--config", self.config_file, "run"), self.log_file)
        if wait:
            self.until_state("running")
        return self

    def kill(self) -> None:
        """SIGKILL of the parent; its workers are gone with it when this returns."""
        assert self.daemon is not None
        self.daemon.kill()
        self.daemon.wait()
        until(lambda: not self.running_workers(), f"no worker of {self.name} outlives its parent", 5)

    def running_workers(self) -> dict[int, str]:
        """The processes of the daemon that run, those of commands left out."""
        return {pid: line for pid, line in self.processes().items() if line.endswith(" run")}

    def leave(self) -> int:
        """Have the daemon drain and end; its exit code."""
        assert self.daemon is not None
        self.daemon.send_signal(signal.SIGTERM)
        return self.daemon.wait(90)

    def snapshot(self) -> dict[str, dict[str, Any]]:
        """The first process of each worker type; empty where the daemon does not answer."""
        with contextlib.suppress(UnavailableError, KeyError):
            status = ask(self.runtime_dir, {"cmd": "status"}, _STATUS_S)["status"]
            return {worker["type"]: worker for worker in status["workers"] if not worker["index"]}
        return {}


class Ground:
    """Everything that runs, below ``folder``; a context manager that leaves nothing running or mounted."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        self.folder = folder
        self.plan = plan
        self.domain = f"day{secrets.token_hex(3)}"
        self.cluster = Cluster(nodes=plan.brokers, directory=folder / "kafka")
        self.files: FileServer
        self.hosts: list[Host] = []
        self.tables: Disk
        self.upstream = Upstream(folder / "upstream", plan.source)
        self.brokers = threading.RLock()
        self.eventhouse = threading.RLock()
        self.hub = threading.RLock()
        self.partitions = {
            "downloads_pending": PARTITIONS,
            "downloads_cached": PARTITIONS,
            "downloads_results": PARTITIONS,
        }
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self.cluster.start()
            stack.callback(self.cluster.stop)
            self.files = FileServer()
            stack.callback(self._stop_files)
            stack.enter_context(self.upstream)
            self.tables = Disk(self.folder / "tables", _TABLE_BYTES)
            stack.callback(self._take_down, self.tables)
            for number, hang_s in enumerate(self.plan.hang_s):
                host = Host(self, number, hang_s)
                stack.callback(self._take_down, host.cache, host.logs)
                stack.callback(host.end)
                self.hosts.append(host)
            until(self._apply_topics, "the topics are made", 90)
            for host in self.hosts:
                host.start()
            for host in self.hosts:
                host.until_state("running")
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *about: object) -> None:
        self._stack.close()

    def _apply_topics(self) -> bool:
        with contextlib.suppress(UnavailableError):  # new brokers make the topic of the groups first
            self.hosts[0].apply_topics()
            return True
        return False

    def _stop_files(self) -> None:
        self.files.stop()  # the one that there is by then

    def _take_down(self, *disks: Disk) -> None:
        for disk in disks:
            disk.take_down(disk.place.with_name(f"{disk.place.name}.kept"))

    def heal(self, tell: Callable[[str], None]) -> None:
        """Undo every fault: brokers, sources, file server and disks are back, all workers run."""
        for node in self.cluster.nodes:
            if node.running:
                node.resume()
        launch(self.cluster.nodes, tell)
        os.kill(self.files.pid, signal.SIGCONT)
        self._heal_upstream(tell)
        self.tables.free()
        for host in self.hosts:
            host.cache.free()
            host.logs.free()
            host.clock.move(0.0)
            for pid in host.processes():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
            host.start()
        for host in self.hosts:
            self._raise_workers(host, tell)

    def _heal_upstream(self, tell: Callable[[str], None]) -> None:
        if self.upstream.eventhouse is not None:
            os.kill(self.upstream.eventhouse.pid, signal.SIGCONT)
            self.upstream.eventhouse.clear_faults()
            self.upstream.eventhouse.change_settings(max_records=DEFAULT_MAX_RECORDS)
        if self.upstream.hub is not None:
            for node in self.upstream.hub.nodes:
                if node.running:
                    node.resume()
            launch(self.upstream.hub.nodes, tell)

    def _raise_workers(self, host: Host, tell: Callable[[str], None]) -> None:
        def down() -> list[dict[str, Any]] | None:
            workers = list(host.snapshot().values())
            return [w for w in workers if w["state"] != "RUNNING"] if workers else None

        deadline = time.monotonic() + 90
        while (left := down()) is None or left:
            for worker in left or ():
                if worker["state"] in ("STOPPED", "FATAL"):
                    tell(f"{host.name}: {worker['type']} is {worker['state']}: {worker['reason']}; started")
                    ask(host.runtime_dir, {"cmd": "start", "type": worker["type"]})
            if time.monotonic() > deadline:
                tell(f"{host.name}: not all workers run: {[(w['type'], w['state']) for w in left or ()]}")
                return
            time.sleep(0.2)

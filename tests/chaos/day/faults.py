"""The faults: what each kind of step does, and how its kills recover."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from chaos.day.brokers import launch
from chaos.day.hosts import Ground, Host
from chaos.day.load import Feeder, canary_ids
from chaos.day.plan import Step
from chaos.day.recovery import PATIENCE_S, Monitor, Recovery, Rows, until_working
from pipelined.errors import UnavailableError
from pipelined.local.eventhouse import Eventhouse
from pipelined.local.eventhouse.settings import DEFAULT_MAX_RECORDS
from pipelined.local.fileserver import FileServer
from pipelined.local.node import Node
from pipelined.local.upstream import EVENTHOUSE, EVENTHUB

__all__ = ["Faults", "SkippedError"]

#: What an answer of the Eventhouse needs to be told beside its kind.
_ORDERS: dict[str, dict[str, Any]] = {"throttled": {"retry_after": "1"}, "hang": {"seconds": 30.0}}


class SkippedError(Exception):
    """A step that could not be done; the text says why."""


class Faults:
    """Does the steps. ``recoveries`` and ``kills`` (by kind) tell what was killed."""

    def __init__(
        self, ground: Ground, feeder: Feeder, monitor: Monitor, rows: Rows, tell: Callable[[str], None]
    ) -> None:
        self.recoveries: list[Recovery] = []
        self.kills: Counter[str] = Counter()
        self.troubles: Counter[str] = Counter()
        self._ground = ground
        self._feeder = feeder
        self._monitor = monitor
        self._rows = rows
        self._tell = tell
        self._under: Counter[str] = Counter()

    def do(self, step: Step) -> None:
        """Do a step, from its beginning to its end. Raises SkippedError."""
        action: Callable[[Step], None] = getattr(self, f"_{step.kind}")
        if step.track == "kill":
            action(step)
            return
        self._under[step.kind] += 1
        try:
            action(step)
            self.troubles[step.kind] += 1
        finally:
            self._under[step.kind] -= 1

    def _host_of(self, step: Step) -> Host:
        return self._ground.hosts[step.host]

    def _killed(self, step: Step, what: str, seconds: float | None, under: tuple[str, ...]) -> None:
        self.recoveries.append(Recovery(step.number, step.kind, what, seconds, under))
        told = "not within its time" if seconds is None else f"after {seconds:.2f} s"
        self._tell(f"  {step.number}: {what} moves again {told}")

    def _troubles(self) -> tuple[str, ...]:
        return tuple(sorted(+self._under))

    # Kills.

    def _worker(self, step: Step) -> None:
        host = self._host_of(step)
        victims = [self._running(host, name) for name in step.workers]
        watched = [self._monitor.watched(host, name) for name in step.workers]
        under, killed = self._troubles(), time.monotonic()
        for victim in victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim["pid"], signal.SIGKILL)
            self.kills["worker"] += 1
        for victim, hosts in zip(victims, watched, strict=True):
            seconds = until_working(host, victim, hosts, killed)
            self._killed(step, victim["type"], seconds, under)

    _workers = _worker

    def _running(self, host: Host, name: str) -> dict[str, Any]:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            worker = host.snapshot().get(name)
            if worker and worker["state"] == "RUNNING":
                return worker
            time.sleep(0.02)
        raise SkippedError(f"{name} does not run on {host.name}")

    def _parent(self, step: Step) -> None:
        host = self._host_of(step)
        with host.up, self._canaries(step, "parent"):
            host.kill()
            self.kills["parent"] += 1
            host.start()

    def _host(self, step: Step) -> None:
        host = self._host_of(step)
        with host.up, self._canaries(step, "host"):
            host.kill()
            self.kills["host"] += 1
            time.sleep(step.seconds)
            host.start()

    def _broker(self, step: Step) -> None:
        nodes = [self._ground.cluster.nodes[number] for number in step.brokers]
        with self._ground.brokers, self._canaries(step, step.kind):
            for node in nodes:
                node.kill()
                self.kills["broker"] += 1
            time.sleep(step.seconds)
            launch(nodes, self._tell)

    _brokers = _broker

    def _eventhouse(self, step: Step) -> None:
        upstream = self._ground.upstream
        with self._ground.eventhouse, self._canaries(step, "eventhouse", EVENTHOUSE):
            assert upstream.eventhouse is not None
            upstream.eventhouse.kill()
            self.kills["eventhouse"] += 1
            time.sleep(step.seconds)
            upstream.restart_eventhouse()

    def _hub(self, step: Step) -> None:
        (node,) = self._hub_nodes()
        with self._ground.hub, self._canaries(step, "hub", EVENTHUB):
            node.kill()
            self.kills["hub"] += 1
            time.sleep(step.seconds)
            launch([node], self._tell)

    def _hub_nodes(self) -> list[Node]:
        assert self._ground.upstream.hub is not None
        return self._ground.upstream.hub.nodes

    @contextlib.contextmanager
    def _canaries(self, step: Step, what: str, by: str = "") -> Iterator[None]:
        """Measures what is done inside: from its beginning until events sent meanwhile have their rows."""
        ids = canary_ids()
        self._rows.expect(ids)
        under, killed = self._troubles(), time.monotonic()
        with ThreadPoolExecutor(1) as pool:
            sent = pool.submit(self._send, ids, by)
            yield
            sent.result()
        arrived = self._rows.arrival(ids, killed + PATIENCE_S + step.seconds)
        self._killed(step, what, None if arrived is None else arrived - killed, under)

    def _send(self, ids: list[str], by: str) -> None:
        time.sleep(0.1)  # the kill comes first
        self._feeder.canaries(ids, by)

    # Troubles.

    def _zombie(self, step: Step) -> None:
        worker = self._running(self._host_of(step), step.workers[0])
        process = os.pidfd_open(worker["pid"])
        try:
            with contextlib.suppress(ProcessLookupError):  # killed meanwhile: by a kill, or taken for hung
                signal.pidfd_send_signal(process, signal.SIGSTOP)
                time.sleep(step.seconds)
                signal.pidfd_send_signal(process, signal.SIGCONT)
        finally:
            os.close(process)

    def _storm(self, step: Step) -> None:
        host, name = self._host_of(step), step.workers[0]
        for _ in range(step.times):
            host.ctl("stop", name)
            time.sleep(step.seconds)
            host.ctl("start", name)

    def _leave(self, step: Step) -> None:
        host = self._host_of(step)
        with host.up:
            self._restart(host, step.seconds)

    def _restart(self, host: Host, away: float) -> None:
        host.start()
        if code := host.leave():
            self._tell(f"  {host.name} ended with exit code {code} when it was told to stop")
        time.sleep(away)
        host.start()

    def _broker_restart(self, step: Step) -> None:
        node = self._ground.cluster.nodes[step.brokers[0]]
        with self._ground.brokers:
            node.stop()
            time.sleep(step.seconds)
            launch([node], self._tell)

    def _broker_freeze(self, step: Step) -> None:
        node = self._ground.cluster.nodes[step.brokers[0]]
        with self._ground.brokers:
            node.pause()
            try:
                time.sleep(step.seconds)
            finally:
                node.resume()

    def _disk_cache(self, step: Step) -> None:
        host = self._host_of(step)
        self._full(host.cache, step)

    def _disk_log(self, step: Step) -> None:
        self._full(self._host_of(step).logs, step)

    def _disk_tables(self, step: Step) -> None:
        self._full(self._ground.tables, step)

    def _full(self, disk: Any, step: Step) -> None:
        if disk.missing:
            raise SkippedError(f"no disk of its own could be mounted: {disk.missing}")
        disk.fill()
        try:
            time.sleep(step.seconds)
        finally:
            disk.free()

    def _files_stall(self, step: Step) -> None:
        pid = self._ground.files.pid
        os.kill(pid, signal.SIGSTOP)
        time.sleep(step.seconds)
        os.kill(pid, signal.SIGCONT)

    def _files_cut(self, step: Step) -> None:
        files = self._ground.files
        os.kill(files.pid, signal.SIGKILL)
        files.stop()
        time.sleep(step.seconds)
        self._ground.files = FileServer(port=int(files.url.rpartition(":")[2]))

    def _answers(self, step: Step) -> None:
        told = {"times": None, "rows": 3} | _ORDERS.get(step.answer, {})
        self._orders(lambda house: house.fault(step.answer, **told))
        time.sleep(step.seconds)
        self._orders(lambda house: house.clear_faults())

    def _limits(self, step: Step) -> None:
        self._orders(lambda house: house.change_settings(max_records=int(step.size)))
        time.sleep(step.seconds)
        self._orders(lambda house: house.change_settings(max_records=DEFAULT_MAX_RECORDS))

    def _orders(self, order: Callable[[Eventhouse], object]) -> None:
        """Tell the Eventhouse; one that is killed at the moment comes back as it should be."""
        with contextlib.suppress(UnavailableError), self._ground.eventhouse:
            assert self._ground.upstream.eventhouse is not None
            order(self._ground.upstream.eventhouse)

    def _eventhouse_freeze(self, step: Step) -> None:
        with self._ground.eventhouse:
            assert self._ground.upstream.eventhouse is not None
            pid = self._ground.upstream.eventhouse.pid
            os.kill(pid, signal.SIGSTOP)
            time.sleep(step.seconds)
            os.kill(pid, signal.SIGCONT)

    def _hub_restart(self, step: Step) -> None:
        (node,) = self._hub_nodes()
        with self._ground.hub:
            node.stop()
            time.sleep(step.seconds)
            launch([node], self._tell)

    def _hub_freeze(self, step: Step) -> None:
        (node,) = self._hub_nodes()
        with self._ground.hub:
            node.pause()
            try:
                time.sleep(step.seconds)
            finally:
                node.resume()

    def _loader(self, step: Step) -> None:
        self.kills["loader"] += self._feeder.killed_command(step.seconds)

    def _clock(self, step: Step) -> None:
        clock = self._host_of(step).clock
        if clock.missing:
            raise SkippedError(f"no clock can be moved: {clock.missing}")
        clock.move(step.size)
        try:
            time.sleep(step.seconds)
        finally:
            clock.move(0.0)

    def _grow(self, step: Step) -> None:
        hosts, change = self._ground.hosts, {f"topics.{step.topic}.partitions": int(step.size)}
        deadline = time.monotonic() + 60
        while (
            done := hosts[0].ctl("--set", f"topics.{step.topic}.partitions={step.size:g}", "topics", "apply")
        ).returncode:
            if time.monotonic() > deadline:
                raise SkippedError(f"topics apply: {done.stderr.strip()}")
        for host in hosts:
            with host.up:
                host.configure(change)
        for host in hosts:
            time.sleep(step.seconds)
            with host.up:
                self._restart(host, 0.0)

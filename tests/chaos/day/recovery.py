"""Time to recover: from a kill until the work it stopped moves again, seen from outside."""

from __future__ import annotations

import contextlib
import json
import statistics
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow.parquet as pq

from chaos.day.hosts import Ground, Host

__all__ = ["PATIENCE_S", "Monitor", "Recovery", "Rows", "statistics_of", "until_working"]

#: Longer than this nobody waits for a recovery: the kill is told as one without.
PATIENCE_S = 45.0
_BUSY_S = 3.0


@dataclass(frozen=True, slots=True)
class Recovery:
    """One kill, and how long it took; ``seconds`` is None where nothing moved in time."""

    step: int
    kind: str
    what: str
    seconds: float | None
    #: The troubles that were under way when the kill came.
    under: tuple[str, ...] = ()


class Monitor(threading.Thread):
    """Looks at each host's status a few times a second: which worker took something in lately."""

    def __init__(self, hosts: Sequence[Host]) -> None:
        super().__init__(daemon=True, name="monitor")
        self._hosts = hosts
        self._moved: dict[tuple[str, str], float] = {}
        self._ended = threading.Event()

    def run(self) -> None:
        """Look, until ``stop``."""
        before: dict[tuple[str, str], int] = {}
        while not self._ended.wait(0.25):
            for host in self._hosts:
                for name, worker in host.snapshot().items():
                    key = (host.name, name)
                    if worker["records_in"] > before.get(key, 0):
                        self._moved[key] = time.monotonic()
                    before[key] = worker["records_in"]

    def stop(self) -> None:
        """End."""
        self._ended.set()
        self.join()

    def watched(self, host: Host, name: str) -> list[Host]:
        """The hosts on which the work of that worker can be seen to go on once it is killed.

        None where it has nothing to do now. All where it alone of its type has: another may stand by, and
        take over. Else itself: what the others do proves nothing.
        """
        lately = time.monotonic() - _BUSY_S
        busy = [each for each in self._hosts if self._moved.get((each.name, name), 0.0) > lately]
        if host not in busy:
            return []
        return [*self._hosts] if busy == [host] else [host]


def until_working(host: Host, before: dict[str, Any], watched: Sequence[Host], killed: float) -> float | None:
    """Seconds from ``killed`` until the work of a worker goes on, None where it does not in time.

    Its successor runs and, where any hosts are ``watched``, a worker of its type on one of them has taken
    something in.
    """
    name = before["type"]
    taken: dict[tuple[str, int], int] = {}
    is_up = moved = False
    while time.monotonic() < killed + PATIENCE_S:
        worker = host.snapshot().get(name)
        is_up = bool(worker and worker["state"] == "RUNNING" and worker["pid"] != before["pid"])
        for each in watched:
            found = worker if each is host else each.snapshot().get(name)
            if found:
                # A new parent counts from the beginning.
                key = (each.name, each.daemon.pid if each.daemon else 0)
                moved |= found["records_in"] > taken.setdefault(key, found["records_in"])
        if is_up and (moved or not watched):
            return time.monotonic() - killed
        time.sleep(0.02)
    return None


class Rows(threading.Thread):
    """Follows the log of the events table, with no part of the product's code: when has which id its row?"""

    def __init__(self, ground: Ground) -> None:
        super().__init__(daemon=True, name="rows")
        self._table = Path(f"{ground.folder}/tables/{ground.domain}_events")
        self._version = 0
        self._wanted: set[str] = set()
        self._seen: dict[str, float] = {}
        self._ended = threading.Event()

    def run(self) -> None:
        """Follow, until ``stop``."""
        while not self._ended.wait(0.05):
            while (log := self._table / "_delta_log" / f"{self._version:020d}.json").exists():
                if self._wanted:
                    self._take(log.read_text())
                self._version += 1

    def stop(self) -> None:
        """End."""
        self._ended.set()
        self.join()

    def expect(self, ids: Iterable[str]) -> None:
        """Look out for these ids from now on."""
        self._wanted |= set(ids)

    def arrival(self, ids: Sequence[str], deadline: float) -> float | None:
        """When the last of the expected ids had its row, None where one has none at ``deadline``."""
        while not all(each in self._seen for each in ids):
            if time.monotonic() > deadline:
                self._wanted -= set(ids)
                return None
            time.sleep(0.02)
        self._wanted -= set(ids)
        return max(self._seen[each] for each in ids)

    def _take(self, log: str) -> None:
        now = time.monotonic()
        for line in log.splitlines():
            added = json.loads(line).get("add") if line.startswith('{"add"') else None
            if added is None or not added.get("dataChange", True):
                continue
            # A compaction may have taken the file away since.
            with contextlib.suppress(FileNotFoundError):
                table = pq.read_table(self._table / unquote(added["path"]), columns=["trace_id"])
                for each in self._wanted & set(table.column("trace_id").to_pylist()):
                    self._seen.setdefault(each, now)


def statistics_of(recoveries: Sequence[Recovery]) -> dict[str, Any]:
    """Number, median, p99 and worst in seconds, and how many did not recover in time."""
    seconds = sorted(each.seconds for each in recoveries if each.seconds is not None)
    found: dict[str, Any] = {"kills": len(recoveries), "never": len(recoveries) - len(seconds)}
    if seconds:
        p99 = seconds[min(len(seconds) - 1, round(0.99 * len(seconds)))]
        found |= {"median": statistics.median(seconds), "p99": p99, "worst": seconds[-1]}
    return {name: round(value, 3) for name, value in found.items()}

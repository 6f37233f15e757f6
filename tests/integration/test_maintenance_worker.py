"""The worker table-maintenance, in this process: it tends, counts, goes on after a failure, and stops."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sinks import SETTINGS, chunk, make, opened

from pipelined.config.work import Tables
from pipelined.errors import DependencyError
from pipelined.lake.maintenance import Done, Maintenance
from pipelined.stats import registry as metrics
from pipelined.stats.slots import Child, SharedStats
from pipelined.workers.maintenance import MaintenanceRuntime
from waiting import until

QUICK = Tables(tend_seconds=0.1, small_files=3)


def slot() -> Child:
    child = SharedStats({"table-maintenance": 1}).slot("table-maintenance", 0).child
    child.begin(1)
    return child


@contextmanager
def running(tables: list[Maintenance], child: Child, settings: Tables = QUICK) -> Iterator[threading.Thread]:
    stop = threading.Event()
    thread = threading.Thread(target=MaintenanceRuntime(settings, tables, child, stop.is_set).run)
    thread.start()
    try:
        yield thread
    finally:
        began = time.monotonic()
        stop.set()
        thread.join(10)
        assert time.monotonic() - began < 0.5


def table(folder: Path, settings: Tables = QUICK) -> Maintenance:
    return Maintenance(make(folder)._source, settings)


def test_it_is_ready_at_once_and_waits_for_tables_that_are_not_there_yet(tmp_path: Path) -> None:
    child = slot()
    with running([table(tmp_path)], child):
        until(lambda: child.is_ready, patience=1)
        until(lambda: child.gauge(metrics.LAST_PROGRESS) > 0)
        assert child.counter(metrics.MAINTENANCE, "ok") == child.counter(metrics.MAINTENANCE, "failed") == 0
        sink = opened(tmp_path)
        for start in range(3):
            sink.commit([chunk([start])])
        until(lambda: child.counter(metrics.COMPACTED) == 3)
        until(lambda: child.counter(metrics.MAINTENANCE, "ok") > 0)
        until(lambda: time.time() - child.gauge(metrics.MAINTAINED) < 60)


def test_a_failure_is_counted_and_the_next_look_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(tmp_path)
    broken = [True]
    real = Maintenance.tend

    def tend(self: Maintenance) -> Done:
        if broken.pop() if broken else False:
            raise DependencyError("table_unavailable", "the store is down")
        return real(self)

    monkeypatch.setattr(Maintenance, "tend", tend)
    child = slot()
    with running([table(tmp_path)], child):
        until(lambda: child.counter(metrics.MAINTENANCE, "failed") == 1)
        until(lambda: child.counter(metrics.MAINTENANCE, "ok") > 0)


def test_it_gives_signs_of_life_and_stops_in_the_middle_of_a_long_operation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(tmp_path)
    begun, end = threading.Event(), threading.Event()

    def tend(_self: Maintenance) -> Done:
        begun.set()
        end.wait(20)
        return Done()

    monkeypatch.setattr(Maintenance, "tend", tend)
    child = slot()
    try:
        with running([table(tmp_path)], child):
            assert begun.wait(10)
            before = child.heartbeat_ns
            until(lambda: child.heartbeat_ns > before, patience=1)
    finally:
        end.set()


def test_rounds_are_left_out_where_they_are_switched_off(tmp_path: Path) -> None:
    opened(tmp_path)
    child, settings = slot(), Tables(tend_seconds=0.1, maintenance_hours=0)
    with running([table(tmp_path, settings)], child, settings):
        until(lambda: child.counter(metrics.MAINTENANCE, "ok") > 1)
    assert table(tmp_path, SETTINGS).finished() == 0

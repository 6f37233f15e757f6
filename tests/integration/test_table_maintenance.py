"""Maintenance of a table, by itself and beside sinks at work."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable
from sinks import DAY, P0, P1, SETTINGS, chunk, ids, make, names, opened

from pipelined.errors import DependencyError
from pipelined.lake import durable, log, maintenance
from pipelined.lake.inspection import Inspection
from pipelined.lake.maintenance import Maintenance
from pipelined.lake.schemas import ATTACHMENTS, EVENTS, TableSpec
from pipelined.lake.sink import Chunk, DeltaSink

TODAY = dt.datetime.now(dt.UTC).date()


def keeper(folder: Path, spec: TableSpec = EVENTS, **settings: Any) -> Maintenance:
    return Maintenance(
        make(folder, spec, **settings)._source,
        dataclasses.replace(SETTINGS, **settings),
    )


def inspection(folder: Path, spec: TableSpec = EVENTS) -> Inspection:
    return Inspection(make(folder, spec)._source, spec.identity, "writer", [P0, P1])


def commits(folder: Path, count: int, spec: TableSpec = EVENTS, **options: Any) -> None:
    sink = opened(folder, spec)
    for start in range(0, 2 * count, 2):
        sink.commit([chunk(range(start, start + 2), spec=spec, **options)])


def files(folder: Path) -> int:
    return len(DeltaTable(str(folder / "t")).file_uris())


def age(folder: Path, hours: float) -> None:
    for file in (folder / "t").rglob("*"):
        if file.is_file():
            os.utime(file, (time.time() - hours * 3600,) * 2)


def test_only_days_that_are_over_are_compacted_unless_told_otherwise(tmp_path: Path) -> None:
    commits(tmp_path, 4, day=lambda n: DAY if n < 6 else TODAY)
    table = keeper(tmp_path)
    assert [(day.day, day.files) for day in table.small_files()] == [(DAY.isoformat(), 3)]
    assert table.compact([day.day for day in table.small_files()]).compacted == 3
    assert table.small_files() == []
    assert files(tmp_path) == 2
    commits(tmp_path, 6, day=TODAY)
    assert [day.files for day in table.small_files(open_days=True)] == [3]
    assert ids(tmp_path) == names(0, range(12))


def test_compaction_writes_as_the_sink_does_and_is_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commits(tmp_path, 3)
    synced: list[str] = []
    real = durable._fsync

    def fsync(path: Path) -> None:
        synced.append(path.name)
        real(path)

    monkeypatch.setattr(durable, "_fsync", fsync)
    keeper(tmp_path).compact([DAY.isoformat()])
    (uri,) = DeltaTable(str(tmp_path / "t")).file_uris()
    assert uri.endswith(".zstd.parquet")
    assert {Path(uri).name, f"{4:020}.json", "_delta_log", f"event_date={DAY}"} <= {*synced}


def test_vacuum_removes_what_is_old_enough_and_nothing_that_is_named(tmp_path: Path) -> None:
    commits(tmp_path, 3)
    table = keeper(tmp_path)
    table.compact([DAY.isoformat()])
    orphan = tmp_path / "t" / f"event_date={DAY}" / "part-1.parquet"
    leftovers = [
        orphan.with_name("part-2.parquet#1"),
        tmp_path / "t" / "_delta_log" / f"{9:020}.json#17",
    ]
    for file in (orphan, *leftovers):
        file.write_bytes(b"x" * 10)
    assert table.removable(24) == []
    os.utime(leftovers[0], (0, 0))
    os.utime(orphan, (0, 0))
    assert {file.path for file in table.removable(24)} == {
        f"event_date={DAY}/part-1.parquet",
        f"event_date={DAY}/part-2.parquet#1",
    }
    assert table.vacuum(24) == (0, 2, 20)
    assert not orphan.exists()
    assert table.vacuum(0).removed == 4  # three compacted files, and the other leftover
    assert ids(tmp_path) == names(0, range(6))
    assert len(list((tmp_path / "t").rglob("part-*"))) == 1


def test_a_vacuum_with_nothing_to_remove_commits_nothing(tmp_path: Path) -> None:
    commits(tmp_path, 1)
    assert keeper(tmp_path).vacuum(24) == (0, 0, 0)
    assert DeltaTable(str(tmp_path / "t")).version() == 1


def test_the_log_is_kept_short_and_older_versions_as_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: dict[str, Any] = {"checkpoint_commits": 10, "log_commits": 20, "small_files": 1000}
    sink = opened(tmp_path, **settings)
    for start in range(130):
        sink.commit([chunk([start])])
    table = keeper(tmp_path, **settings)
    folder = tmp_path / "t" / "_delta_log"
    monkeypatch.setattr(log, "_READING_S", 3600)
    assert table.tend().removed == 0  # a reader may be about to read them
    age(tmp_path, 3.0)
    hour = time.time() // 3600
    for first, last, ago in ((9, 50, 10), (59, 90, 8)):
        for number in range(first, last, 10):
            os.utime(folder / f"{number:020}.checkpoint.parquet", ((hour - ago) * 3600 + number,) * 2)
    assert table.tend().removed > 0
    left = sorted(int(file.stem) for file in folder.glob("*.json"))
    # The last 20 commits need those from the checkpoint before them on.
    assert left == [*range(109, 131)]
    checkpoints = sorted(int(file.name[:20]) for file in folder.glob("*.checkpoint.parquet"))
    assert checkpoints == [49, 89, 109, 119, 129]
    sink.commit([chunk([130])])
    fresh = opened(tmp_path)
    assert fresh.positions([P0]) == {P0: 131}
    assert ids(tmp_path) == names(0, range(131))
    for kept in (49, 89):
        assert DeltaTable(str(tmp_path / "t"), version=kept).count() == kept
    assert DeltaTable(str(tmp_path / "t"), version=109).transaction_version(f"writer/{P0[0]}/0") == 109


def test_commits_that_no_sink_has_looked_through_stay_in_the_log(tmp_path: Path) -> None:
    commits(tmp_path, 40)
    DeltaTable(str(tmp_path / "t")).create_checkpoint()
    age(tmp_path, 3.0)
    assert keeper(tmp_path, log_commits=2).tend().removed == 0
    assert len(list((tmp_path / "t" / "_delta_log").glob("*.json"))) == 41


def test_a_day_with_many_small_files_is_compacted_at_once(tmp_path: Path) -> None:
    commits(tmp_path, 5, day=TODAY)
    assert keeper(tmp_path, small_files=6).tend().compacted == 0
    assert keeper(tmp_path, small_files=5).tend().compacted == 5
    assert files(tmp_path) == 1


def test_a_round_is_made_once_for_all_hosts(tmp_path: Path) -> None:
    commits(tmp_path, 4)
    one, two = keeper(tmp_path), keeper(tmp_path)
    assert one.finished() == 0
    assert one.round(1.0) is not None
    assert time.time() - two.finished() < 60
    assert two.round(1.0) is None
    assert two.round(0.0) is not None
    assert files(tmp_path) == 1
    assert ids(tmp_path) == names(0, range(8))


def test_of_two_hosts_that_begin_a_round_at_once_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commits(tmp_path, 2)
    barrier = threading.Barrier(2)
    real = Maintenance._note

    def together(self: Maintenance, table: DeltaTable, name: str, number: int) -> None:
        if name == maintenance._CLAIMED:
            barrier.wait(10)
        real(self, table, name, number)

    monkeypatch.setattr(Maintenance, "_note", together)
    done: list[object] = []
    hosts = [threading.Thread(target=lambda: done.append(keeper(tmp_path).round(1.0))) for _ in range(2)]
    for host in hosts:
        host.start()
    for host in hosts:
        host.join(30)
    assert [result is None for result in done].count(True) == 1


def test_the_claim_of_a_host_that_died_is_void_after_an_hour(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commits(tmp_path, 2)
    dying = keeper(tmp_path)
    monkeypatch.setattr(dying, "vacuum", lambda _hours: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        dying.round(1.0)
    other = keeper(tmp_path)
    assert other.round(1.0) is None
    monkeypatch.setattr(maintenance, "_CLAIM_S", 0)
    assert other.round(1.0) is not None


@pytest.mark.parametrize("spec", [EVENTS, ATTACHMENTS], ids=["append", "upsert"])
def test_sinks_and_maintenance_at_full_speed_lose_and_double_nothing(
    tmp_path: Path, spec: TableSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "_READING_S", 0)
    settings: dict[str, Any] = {
        "checkpoint_commits": 5,
        "log_commits": 5,
        "small_files": 2,
        "reopen_commits": 7,
    }
    ended = threading.Event()
    opened(tmp_path, spec, **settings)

    def store(sink: DeltaSink, rows: Chunk) -> None:
        for _ in range(10):  # a worker waits a little, and calls again with the same records
            with contextlib.suppress(DependencyError):
                sink.commit([rows])
                return
        raise AssertionError("the other writers always came first")

    def write(partition: tuple[str, int]) -> None:
        topic, number = partition
        sink = opened(tmp_path, spec, **settings)
        for start in range(0, 40, 2):
            store(sink, chunk(range(start, start + 2), partition, spec=spec))
            if spec.merge_keys and start % 6 == 4:  # a replay replaces rows: a MERGE
                again = chunk(range(start, start + 2), partition, spec=spec, status="completed")
                offsets = [1000 + start, 1001 + start]
                store(sink, Chunk((topic, number + 2), offsets[1] + 1, again.rows, offsets))

    def tend() -> None:
        table = keeper(tmp_path, spec, **settings)
        while not ended.wait(0.05):
            table.tend()
            table.vacuum(24)

    with ThreadPoolExecutor(3) as pool:
        tending = pool.submit(tend)
        writers = [pool.submit(write, partition) for partition in (P0, P1)]
        try:
            for writer in writers:
                writer.result(120)
        finally:
            ended.set()
        tending.result(60)
    assert ids(tmp_path) == sorted(names(0, range(40)) + names(1, range(40)))
    operations = {version.operation for version in inspection(tmp_path, spec).history(1000)}
    assert "OPTIMIZE" in operations
    found = inspection(tmp_path, spec).check(None)
    assert (found.problems, found.doubled) == ([], [])
    assert {*found.positions.values()} == {40}


def test_of_two_compactions_at_once_one_leaves_the_table_to_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commits(tmp_path, 4)
    opened_it, go_on = threading.Event(), threading.Event()
    real = Maintenance._opened

    def stopped_before_its_commit(self: Maintenance) -> DeltaTable:
        table = real(self)
        opened_it.set()
        assert go_on.wait(30)
        return table

    with ThreadPoolExecutor(1) as pool, monkeypatch.context() as patched:
        patched.setattr(Maintenance, "_opened", stopped_before_its_commit)
        first = pool.submit(keeper(tmp_path).compact, [DAY.isoformat()])
        assert opened_it.wait(30)
        patched.undo()
        assert keeper(tmp_path).compact([DAY.isoformat()]).compacted == 0
        go_on.set()
        assert first.result().compacted == 4
    assert ids(tmp_path) == names(0, range(8)), "both would have been committed"


def test_the_table_layer_commits_two_compactions_of_the_same_files(tmp_path: Path) -> None:
    """Why only one may be at it; where this fails, pipelined.lake.alone is needed no more."""
    commits(tmp_path, 4)
    first, second = (DeltaTable(str(tmp_path / "t")) for _ in range(2))
    first.optimize.compact()
    second.optimize.compact()
    assert len(ids(tmp_path)) == 16


def test_compaction_that_always_comes_second_gives_up_for_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commits(tmp_path, 3)
    real = Maintenance._opened

    def overtaken(self: Maintenance) -> DeltaTable:
        table = real(self)
        DeltaTable(str(tmp_path / "t")).delete("trace_id = 'nobody'")
        DeltaTable(str(tmp_path / "t")).alter.set_table_properties({"delta.checkpointInterval": "50"})
        return table

    monkeypatch.setattr(Maintenance, "_opened", overtaken)
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)
    assert keeper(tmp_path).compact([DAY.isoformat()]).compacted == 0
    assert files(tmp_path) == 3


def test_a_check_finds_what_is_doubled_by_day_and_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelined.lake.check._AT_ONCE", 3)  # several parts
    commits(tmp_path, 5)
    clean = inspection(tmp_path).check(None)
    assert (clean.rows, clean.files, clean.problems, clean.doubled) == (10, 5, [], [])
    assert clean.positions == {f"{P0[0]}/0": 10, f"{P0[0]}/1": 0}

    later = DAY + dt.timedelta(days=1)
    sink = opened(tmp_path)
    sink.commit([chunk(range(10, 13), ids=lambda n: str(n - 10))])
    sink.commit([chunk([13], ids=lambda _n: "7", day=later)])
    found = inspection(tmp_path).check(None)
    assert [(one.key, one.rows, one.days) for one in found.doubled] == [
        (("0:0",), 2, (DAY.isoformat(),)),
        (("0:1",), 2, (DAY.isoformat(),)),
        (("0:2",), 2, (DAY.isoformat(),)),
        (("0:7",), 2, (DAY.isoformat(), later.isoformat())),
    ]
    assert found.doubled_by_day == {DAY.isoformat(): 4}
    assert inspection(tmp_path).check(later).doubled == []

    first, second = DeltaTable(str(tmp_path / "t")).file_uris()[:2]
    Path(first.removeprefix("file://")).unlink()
    with Path(second.removeprefix("file://")).open("ab") as file:
        file.write(b"more")
    told = " ".join(inspection(tmp_path).check(None).problems)
    assert f"{Path(first).name} is missing" in told
    assert f"{Path(second).name} has" in told


def test_a_check_counts_what_no_version_needs(tmp_path: Path) -> None:
    commits(tmp_path, 3)
    keeper(tmp_path).compact([DAY.isoformat()])
    (tmp_path / "t" / "x.parquet#1").write_bytes(b"12345")
    found = inspection(tmp_path).check(None)
    assert found.unneeded[0] == 3
    assert found.staging == (1, 5)


def test_history_tells_rows_files_and_offsets(tmp_path: Path) -> None:
    commits(tmp_path, 2)
    keeper(tmp_path).compact([DAY.isoformat()])
    DeltaTable(str(tmp_path / "t")).restore(1)
    restore, optimize, second = inspection(tmp_path).history(3)
    assert (second.version, second.operation, second.rows, second.added) == (2, "WRITE", 2, 1)
    assert second.positions == {f"writer/{P0[0]}/0": 4}
    assert (optimize.operation, optimize.added, optimize.removed) == ("OPTIMIZE", 1, 2)
    assert restore.operation == "RESTORE to 1"
    assert len(inspection(tmp_path).history(100)) == 5


@pytest.mark.parametrize("act", [lambda k: k.tend(), lambda k: k.vacuum(24), lambda k: k.checkpoint()])
def test_a_table_that_cannot_be_read_is_our_error(
    tmp_path: Path, act: Callable[[Maintenance], object]
) -> None:
    commits(tmp_path, 1)
    for commit in (tmp_path / "t" / "_delta_log").glob("*.json"):
        commit.write_text("nonsense")
    with pytest.raises(DependencyError, match="cannot be read or written"):
        act(keeper(tmp_path))

from __future__ import annotations

import datetime as dt
import os
import threading
from pathlib import Path

import pytest
from deltalake import DeltaTable
from sinks import P0, P1, Observed, chunk, ids, names, opened

from pipelined.errors import DependencyError
from pipelined.lake import durable
from pipelined.lake import sink as sink_module
from pipelined.lake.sink import Committed


def test_rows_and_positions_are_one_commit_and_positions_are_the_next_offsets(tmp_path: Path) -> None:
    observer = Observed()
    sink = opened(tmp_path, observer=observer)
    before = DeltaTable(str(tmp_path / "t")).version()
    done = sink.commit([chunk(range(5)), chunk(range(10, 12), P1, next_offset=20)])
    assert done == Committed("ok", 7, 0)
    table = DeltaTable(str(tmp_path / "t"))
    assert table.version() == before + 1
    assert table.transaction_version("writer/xact.events.ingested/0") == 5
    assert table.transaction_version("writer/xact.events.ingested/1") == 20
    assert sink.positions([P0, P1]) == {P0: 5, P1: 20}
    assert observer.results == ["ok"]


def test_what_is_stored_already_is_left_out_even_in_the_middle_of_a_chunk(tmp_path: Path) -> None:
    observer = Observed()
    sink = opened(tmp_path, observer=observer)
    sink.commit([chunk(range(10))])
    assert sink.commit([chunk(range(4, 14)), chunk(range(3), P1)]) == Committed("ok", 7, 6)
    assert sink.commit([chunk(range(14))]) == Committed("skipped_duplicate", 0, 14)
    assert ids(tmp_path) == sorted(names(0, range(14)) + names(1, range(3)))
    assert observer.results == ["ok", "ok", "skipped_duplicate"]


def test_several_rows_of_one_record_stay_together(tmp_path: Path) -> None:
    sink = opened(tmp_path)
    sink.commit([chunk([0, 0, 1], next_offset=2)])
    assert sink.commit([chunk([0, 0, 1, 2, 2], next_offset=3)]) == Committed("ok", 2, 3)


def test_a_position_never_goes_back(tmp_path: Path) -> None:
    opened(tmp_path).commit([chunk(range(20))])
    late = opened(tmp_path)
    assert late.commit([chunk(range(5))]).result == "skipped_duplicate"
    assert late.positions([P0]) == {P0: 20}


def test_several_chunks_of_one_partition_make_one_position(tmp_path: Path) -> None:
    sink = opened(tmp_path)
    sink.commit([chunk(range(3)), chunk(range(3, 6)), chunk(range(6, 7))])
    assert sink.positions([P0]) == {P0: 7}
    assert ids(tmp_path) == names(0, range(7))


def test_positions_alone_are_committed_where_records_gave_no_rows(tmp_path: Path) -> None:
    sink = opened(tmp_path)
    assert sink.commit([chunk([], next_offset=8)]) == Committed("ok", 0, 0)
    assert opened(tmp_path).positions([P0]) == {P0: 8}
    assert not list((tmp_path / "t").glob("**/*.parquet"))


def test_two_sinks_of_one_app_with_the_same_records_store_them_once(tmp_path: Path) -> None:
    observer = Observed()
    one, two = opened(tmp_path), opened(tmp_path, observer=observer)
    assert two.commit([chunk(range(2))]).rows == 2
    one.commit([chunk(range(2, 6))])
    # `two` has not seen that: its handle is out of date, and the table refuses it.
    assert two.commit([chunk(range(2, 8))]) == Committed("ok", 2, 4)
    assert observer.results == ["ok", "conflict", "ok"]
    assert ids(tmp_path) == names(0, range(8))


def test_a_partition_that_went_to_another_sink_and_came_back_is_not_stored_twice(tmp_path: Path) -> None:
    one, two = opened(tmp_path), opened(tmp_path)
    one.commit([chunk(range(2))])
    two.commit([chunk(range(2, 4))])
    one.commit([chunk(range(3), P1)])  # takes the other's commit in, unasked
    assert one.commit([chunk(range(2, 6))]) == Committed("ok", 2, 2)
    assert ids(tmp_path) == sorted(names(0, range(6)) + names(1, range(3)))


def test_sinks_of_different_apps_do_not_hinder_each_other(tmp_path: Path) -> None:
    observer = Observed()
    one, two = opened(tmp_path, app="one"), opened(tmp_path, app="two", observer=observer)
    one.commit([chunk(range(2))])
    assert two.commit([chunk(range(2, 4))]).rows == 2
    assert observer.results == ["ok"]


def test_four_zombies_with_the_same_records_at_full_speed_store_each_once(tmp_path: Path) -> None:
    errors: list[BaseException] = []

    def run() -> None:
        sink = opened(tmp_path)
        try:
            for start in range(0, 200, 10):
                sink.commit([chunk(range(start, start + 10))])
        except BaseException as error:  # noqa: BLE001 - shown by the assertion below
            errors.append(error)

    opened(tmp_path)
    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert ids(tmp_path) == names(0, range(200))


def test_files_log_and_folders_are_fsynced_before_a_commit_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = opened(tmp_path)
    synced: set[Path] = set()
    real = os.fsync

    def fsync(handle: int) -> None:
        synced.add(Path(f"/proc/self/fd/{handle}").readlink())
        real(handle)

    monkeypatch.setattr(durable.os, "fsync", fsync)
    sink.commit([chunk(range(3)), chunk(range(3), P1, day=dt.date(2026, 1, 6))])
    root = (tmp_path / "t").resolve()
    files = {path.resolve() for path in root.glob("**/*.parquet")}
    assert len(files) == 2
    log = root / "_delta_log"
    wanted = {*files, *(file.parent for file in files), root, log, log / f"{1:020}.json"}
    assert wanted <= synced


def test_an_fsync_that_fails_is_no_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = opened(tmp_path)

    def fsync(_handle: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(sink_module, "_back_off", lambda *_args: None)
    with monkeypatch.context() as patched:
        patched.setattr(durable.os, "fsync", fsync)
        with pytest.raises(DependencyError, match="Input/output error"):
            sink.commit([chunk(range(3))])
    assert sink.commit([chunk(range(3))]).result == "skipped_duplicate"
    assert ids(tmp_path) == names(0, range(3))


def test_what_a_dead_writer_left_unsynced_is_synced_when_the_table_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(tmp_path).commit([chunk(range(3))])
    synced: set[str] = set()
    monkeypatch.setattr(durable, "_fsync", lambda path: synced.add(path.name))
    opened(tmp_path)
    (file,) = (tmp_path / "t").glob("**/*.parquet")
    assert {file.name, f"{1:020}.json", "_delta_log", "event_date=2026-01-05"} <= synced

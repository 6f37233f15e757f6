"""The sink on its bad days that test_sink_failures.py does not have: others change the table under it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable, Field, write_deltalake
from deltalake.schema import PrimitiveType
from sinks import P0, P1, SETTINGS, Observed, chunk, ids, make, names, opened

from pipelined.errors import ConfigError, TableRestoredError
from pipelined.lake import sink as sink_module
from pipelined.lake.maintenance import Maintenance
from pipelined.lake.schemas import ATTACHMENTS, EVENTS, TableSpec

DAY_S = 24 * 3600


def table(folder: Path, version: int | None = None) -> DeltaTable:
    return DeltaTable(str(folder / "t"), version=version)


def maintenance(folder: Path, spec: TableSpec = EVENTS) -> Maintenance:
    return Maintenance(make(folder, spec)._source, SETTINGS)


def log_files(folder: Path, ending: str) -> list[Path]:
    return sorted((folder / "t" / "_delta_log").glob(f"*.{ending}"))


KILLED = """
import os, pathlib, signal, sys
sys.path.insert(0, sys.argv[2])
import pyarrow as pa
from sinks import chunk, opened
from pipelined.lake import sink as module

def halfway(table, rows, **options):
    # The table layer takes the rows from a stream: the file is there before the stream ends.
    folder = pathlib.Path(sys.argv[1]) / "t"
    before = set(folder.rglob("*.parquet*"))
    def batches():
        while True:
            yield from rows.to_batches()
            if {file.name for file in set(folder.rglob("*.parquet*")) - before if "#" not in file.name}:
                os.kill(os.getpid(), signal.SIGKILL)
    real(table, pa.RecordBatchReader.from_batches(rows.schema, batches()), **options, target_file_size=1)

sink = opened(pathlib.Path(sys.argv[1]))
sink.commit([chunk(range(3))])
real, module.write_deltalake = module.write_deltalake, halfway
sink.commit([chunk(range(3, 2000), raw_json="x" * 500)])
"""


def test_a_writer_killed_between_data_file_and_log_entry_leaves_an_orphan_that_vacuum_removes(
    tmp_path: Path,
) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path), str(Path(__file__).parent)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    named = {Path(uri).name for uri in table(tmp_path).file_uris()}
    orphans = [file for file in (tmp_path / "t").rglob("*.parquet*") if file.name not in named]
    assert any("#" not in file.name for file in orphans)
    assert ids(tmp_path) == names(0, range(3))

    sink = opened(tmp_path)
    assert sink.positions([P0]) == {P0: 3}
    sink.commit([chunk(range(3, 8))])
    assert ids(tmp_path) == names(0, range(8))

    keeper = maintenance(tmp_path)
    assert keeper.vacuum(24).removed == 0  # so young that they could belong to a commit under way
    for file in orphans:
        os.utime(file, (time.time() - 2 * DAY_S,) * 2)
    assert keeper.vacuum(24).removed == len(orphans)
    assert not any(file.exists() for file in orphans)
    assert ids(tmp_path) == names(0, range(8))


def test_two_writers_on_one_partition_store_each_row_once_and_the_slower_one_leaves_an_orphan_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    observer = Observed()
    slow, quick = opened(tmp_path, observer=observer), opened(tmp_path)

    def overtaken(*args: Any, **options: Any) -> None:
        monkeypatch.setattr(sink_module, "write_deltalake", write_deltalake)
        quick.commit([chunk(range(7))])
        write_deltalake(*args, **options)

    monkeypatch.setattr(sink_module, "write_deltalake", overtaken)
    assert slow.commit([chunk(range(10))]).rows == 3
    assert observer.results == ["conflict", "ok"]
    assert ids(tmp_path) == names(0, range(10))
    for file in (tmp_path / "t").rglob("*.parquet"):
        os.utime(file, (time.time() - 2 * DAY_S,) * 2)
    assert maintenance(tmp_path).vacuum(24).removed == 1
    assert ids(tmp_path) == names(0, range(10))


@pytest.mark.parametrize("spec", [EVENTS, ATTACHMENTS], ids=["append", "upsert"])
def test_a_table_compacted_and_vacuumed_between_two_commits_is_none_the_worse(
    tmp_path: Path, spec: TableSpec
) -> None:
    sink = opened(tmp_path, spec)
    for start in range(0, 10, 2):
        sink.commit([chunk(range(start, start + 2), spec=spec)])
    keeper = maintenance(tmp_path, spec)
    assert keeper.compact([day.day for day in keeper.small_files()]).compacted == 5
    assert keeper.vacuum(0).removed >= 5
    keeper.checkpoint()
    sink.commit([chunk(range(10, 12), spec=spec)])
    sink.commit([chunk(range(12, 14), spec=spec)])
    assert ids(tmp_path) == names(0, range(14))


def test_a_column_that_somebody_adds_while_the_sink_holds_its_handle_is_left_null(tmp_path: Path) -> None:
    observer = Observed()
    sink = opened(tmp_path, observer=observer)
    sink.commit([chunk(range(2))])
    table(tmp_path).alter.add_columns([Field("theirs", PrimitiveType("string"))])
    sink.commit([chunk(range(2, 4))])
    assert observer.results == ["ok", "conflict", "ok"]
    assert ids(tmp_path) == names(0, range(4))


@pytest.mark.parametrize("spec", [EVENTS, ATTACHMENTS], ids=["append", "upsert"])
def test_a_log_that_was_cleaned_up_under_the_handle_loses_and_doubles_nothing(
    tmp_path: Path, spec: TableSpec
) -> None:
    sink, other = opened(tmp_path, spec), opened(tmp_path, spec, checkpoint_commits=5)
    sink.commit([chunk(range(2), spec=spec)])
    for start in range(0, 20, 2):
        other.commit([chunk(range(start, start + 2), P1, spec=spec)])
    table(tmp_path).create_checkpoint()
    for commit in log_files(tmp_path, "json")[:-1]:
        commit.unlink()  # those that the first sink has not seen, too
    sink.commit([chunk(range(2, 4), spec=spec)])
    other.commit([chunk(range(20, 22), P1, spec=spec)])
    assert ids(tmp_path) == sorted(names(0, range(4)) + names(1, range(22)))


def test_a_data_file_cut_by_a_power_loss_stops_the_writer_until_the_table_is_put_back(tmp_path: Path) -> None:
    sink = opened(tmp_path)
    sink.commit([chunk(range(3))])
    before = set((tmp_path / "t").rglob("*.parquet"))
    sink.commit([chunk(range(3, 6))])
    sink.close()
    (cut,) = set((tmp_path / "t").rglob("*.parquet")) - before
    os.truncate(cut, 0)  # the commit survived, what it names did not
    with pytest.raises(
        ConfigError, match=rf"{cut.name} has 0 bytes, and version 2 .* version 1 \(DeltaTable"
    ):
        opened(tmp_path)
    table(tmp_path).restore(1)
    successor = opened(tmp_path)
    assert successor.positions([P0]) == {P0: 3}
    successor.commit([chunk(range(3, 6))])
    assert ids(tmp_path) == names(0, range(6))


def test_a_restore_under_a_running_sink_ends_it_before_it_writes_past_the_gap(tmp_path: Path) -> None:
    sink = opened(tmp_path)
    for start in range(0, 10, 2):
        sink.commit([chunk(range(start, start + 2))])
    table(tmp_path).restore(2)
    with pytest.raises(TableRestoredError, match=r"ingested/0 stands at offset 4 there, and had come to 10"):
        sink.commit([chunk(range(10, 12))])
    assert ids(tmp_path) == names(0, range(4))

    successor = opened(tmp_path)
    assert successor.positions([P0]) == {P0: 4}
    successor.commit([chunk(range(4, 8))])
    successor.commit([chunk(range(4, 12))])
    assert ids(tmp_path) == names(0, range(12))
    assert opened(tmp_path).positions([P0]) == {P0: 12}


def test_the_table_layer_leaves_positions_as_they_were_when_it_restores_and_ours_go_back(
    tmp_path: Path,
) -> None:
    sink = opened(tmp_path)
    sink.commit([chunk(range(2)), chunk(range(5), P1)])
    sink.commit([chunk(range(2, 9))])
    sink.close()
    table(tmp_path).restore(1)
    assert table(tmp_path).transaction_version(f"writer/{P0[0]}/0") == 9  # though its rows are gone

    again = opened(tmp_path)
    assert again.positions([P0, P1]) == {P0: 2, P1: 5}
    again.commit([chunk(range(2, 9))])
    assert ids(tmp_path) == sorted(names(0, range(9)) + names(1, range(5)))
    # What the partitions without a record since then had is in the same commit: the old log may go.
    table(tmp_path).create_checkpoint()
    for commit in log_files(tmp_path, "json"):
        commit.unlink()
    assert opened(tmp_path).positions([P0, P1]) == {P0: 9, P1: 5}


def test_a_table_restored_twice_backwards_and_forwards_stands_where_its_rows_do(tmp_path: Path) -> None:
    sink = opened(tmp_path)
    for start in range(0, 6, 2):
        sink.commit([chunk(range(start, start + 2))])
    table(tmp_path).restore(1)
    opened(tmp_path).commit([chunk(range(2, 3))])
    table(tmp_path).restore(3)
    last = opened(tmp_path)
    assert last.positions([P0]) == {P0: 6}
    last.commit([chunk(range(8))])
    assert ids(tmp_path) == names(0, range(8))


def test_a_restore_to_a_time_is_understood(tmp_path: Path) -> None:
    sink = opened(tmp_path)
    sink.commit([chunk(range(2))])
    time.sleep(0.01)
    sink.commit([chunk(range(2, 4))])
    made = table(tmp_path).history(2)[1]["timestamp"]
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(made / 1000)) + f".{made % 1000:03}Z"
    table(tmp_path).restore(stamp)
    assert opened(tmp_path).positions([P0]) == {P0: 2}


def test_a_restore_that_undoes_no_position_stops_nobody(tmp_path: Path) -> None:
    sink = opened(tmp_path)
    sink.commit([chunk(range(2))])
    sink.commit([chunk(range(2, 4))])
    table(tmp_path).optimize.compact()
    table(tmp_path).restore(2)
    assert sink.commit([chunk(range(4, 6))]).rows == 2
    assert ids(tmp_path) == names(0, range(6))


def test_after_a_restore_keys_that_came_back_are_known(tmp_path: Path) -> None:
    sink = opened(tmp_path, ATTACHMENTS)
    sink.commit([chunk(range(3), spec=ATTACHMENTS, status="failed")])
    table(tmp_path).restore(0)
    second = opened(tmp_path, ATTACHMENTS)
    assert second.positions([P0]) == {P0: 0}
    second.commit([chunk([0], spec=ATTACHMENTS, status="failed")])
    table(tmp_path).restore(1)
    # It stands further than the sink knew, and the row it is to add is there again.
    second.commit([chunk([3], spec=ATTACHMENTS, ids=lambda _n: "2", status="completed")])
    assert ids(tmp_path) == names(0, range(3))


def test_a_folder_put_back_from_a_backup_ends_a_running_sink_and_is_filled_again(tmp_path: Path) -> None:
    sink = opened(tmp_path)
    sink.commit([chunk(range(3))])
    shutil.copytree(tmp_path / "t", tmp_path / "backup")
    sink.commit([chunk(range(3, 6))])
    shutil.rmtree(tmp_path / "t")
    (tmp_path / "backup").rename(tmp_path / "t")
    with pytest.raises(TableRestoredError, match="stands at offset 3 there"):
        sink.commit([chunk(range(6, 9))])
    again = opened(tmp_path)
    assert again.positions([P0]) == {P0: 3}
    again.commit([chunk(range(3, 9))])
    assert ids(tmp_path) == names(0, range(9))


def test_a_restore_to_a_version_whose_log_is_gone_is_told_and_not_guessed(tmp_path: Path) -> None:
    sink = opened(tmp_path)
    for start in range(0, 6, 2):
        sink.commit([chunk(range(start, start + 2))])
    sink.close()
    table(tmp_path).restore(1)
    table(tmp_path).create_checkpoint()
    for commit in log_files(tmp_path, "json")[:3]:
        commit.unlink()
    with pytest.raises(ConfigError, match="restored to version 1, which its log no longer has"):
        opened(tmp_path).positions([P0])

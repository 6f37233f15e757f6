from __future__ import annotations

import datetime as dt
import os
import subprocess
import sys
from pathlib import Path

import pytest
from deltalake import DeltaTable, Field
from deltalake.schema import PrimitiveType
from sinks import DAY, P0, P1, Fault, Observed, Panic, chunk, ids, names, opened, read

from pipelined.errors import AuthError, DependencyError
from pipelined.lake.schemas import ATTACHMENTS
from pipelined.lake.sink import Committed, DeltaSink


@pytest.mark.parametrize("error", [OSError("connection reset"), Panic("panicked at ..."), ValueError("odd")])
def test_a_commit_that_happened_although_it_raised_is_a_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    observer = Observed()
    sink = opened(tmp_path, observer=observer)
    fault = Fault(monkeypatch, ("after", error))
    assert sink.commit([chunk(range(5))]).result == "ambiguous_resolved"
    assert fault.calls == 1
    assert sink.commit([chunk(range(5, 7))]).result == "ok"
    assert ids(tmp_path) == names(0, range(7))
    assert observer.results == ["ambiguous_resolved", "ok"]


def test_a_commit_that_did_not_happen_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = opened(tmp_path)
    Fault(monkeypatch, ("before", OSError("reset")), ("before", Panic("panic")), ("after", OSError("reset")))
    assert sink.commit([chunk(range(5))]).result == "ambiguous_resolved"
    assert ids(tmp_path) == names(0, range(5))


def test_after_a_failure_only_the_partitions_that_are_not_stored_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink, other = opened(tmp_path), opened(tmp_path)
    other.commit([chunk(range(4))])
    Fault(monkeypatch, ("before", OSError("reset")))
    assert sink.commit([chunk(range(4)), chunk(range(4), P1)]) == Committed("ok", 4, 4)
    assert ids(tmp_path) == sorted(names(0, range(4)) + names(1, range(4)))


def test_a_lasting_failure_is_bounded_and_the_same_rows_go_in_later_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    observer = Observed()
    sink = opened(tmp_path, observer=observer)
    fault = Fault(monkeypatch, *[("before", OSError("error sending request"))] * 50)
    with pytest.raises(DependencyError, match="error sending request") as caught:
        sink.commit([chunk(range(5))])
    assert caught.value.code == "table_unavailable"
    assert fault.calls == 3
    fault.plan.clear()
    assert sink.commit([chunk(range(6))]) == Committed("ok", 6, 0)
    assert ids(tmp_path) == names(0, range(6))
    assert observer.results == ["failed", "ok"]


@pytest.mark.parametrize(
    ("text", "kind", "code"),
    [
        ("No space left on device (os error 28)", DependencyError, "disk_full"),
        ("Disk quota exceeded (os error 122)", DependencyError, "disk_full"),
        ("The operation lacked the necessary privileges to complete", AuthError, "table_refused"),
        ("Permission denied (os error 13)", AuthError, "table_refused"),
        ("dns error: failed to lookup address", DependencyError, "table_unavailable"),
    ],
)
def test_a_failure_says_who_must_act(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, kind: type[Exception], code: str
) -> None:
    sink = opened(tmp_path)
    Fault(monkeypatch, *[("before", OSError(text))] * 5)
    with pytest.raises(kind, match="the rows wait") as caught:
        sink.commit([chunk(range(5))])
    assert getattr(caught.value, "code", None) == code


def test_a_commit_that_was_stored_before_the_disk_filled_up_is_a_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = opened(tmp_path)
    Fault(monkeypatch, ("after", OSError("No space left on device (os error 28)")))
    assert sink.commit([chunk(range(5))]).result == "ambiguous_resolved"


def test_a_failing_checkpoint_does_not_store_rows_twice(tmp_path: Path) -> None:
    sink = opened(tmp_path, checkpoint_commits=2)
    # The table layer cannot rename its checkpoint over a folder: its call raises, the commit is durable.
    (tmp_path / "t" / "_delta_log" / f"{1:020}.checkpoint.parquet").mkdir()
    assert sink.commit([chunk(range(5))]).result == "ambiguous_resolved"
    assert ids(tmp_path) == names(0, range(5))


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_a_request_to_stop_passes_through_and_loses_and_doubles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: type[BaseException]
) -> None:
    sink = opened(tmp_path)
    Fault(monkeypatch, ("after", stop()))
    with pytest.raises(stop):
        sink.commit([chunk(range(5))])
    assert sink.commit([chunk(range(7))]) == Committed("ok", 2, 5)
    assert ids(tmp_path) == names(0, range(7))


def test_a_writer_killed_between_commit_and_acknowledgement_goes_on_from_the_table(tmp_path: Path) -> None:
    folder = tmp_path
    script = """
import os, sys, pathlib
sys.path[:0] = [{tests!r}]
import sinks as t
sink = t.opened(pathlib.Path({folder!r}))
sink.commit([t.chunk(range(5))])
t.sink_module.write_deltalake = lambda *a, **k: (t.write_deltalake(*a, **k), os._exit(9))
sink.commit([t.chunk(range(5, 9))])
"""
    code = script.format(tests=str(Path(__file__).parent), folder=str(folder))
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": str(root)}
    ran = subprocess.run([sys.executable, "-c", code], cwd=root, env=environment, check=False)
    assert ran.returncode == 9
    sink = opened(folder)
    assert sink.positions([P0]) == {P0: 9}
    assert sink.commit([chunk(range(12))]) == Committed("ok", 3, 9)
    assert ids(folder) == names(0, range(12))


def test_properties_changed_by_others_meanwhile_are_taken_in(tmp_path: Path) -> None:
    observer = Observed()
    sink = opened(tmp_path, observer=observer)
    sink.commit([chunk(range(2))])
    DeltaTable(str(tmp_path / "t")).alter.set_table_properties({"delta.checkpointInterval": "50"})
    assert sink.commit([chunk(range(2, 4))]) == Committed("ok", 2, 0)
    assert observer.results == ["ok", "conflict", "ok"]


def test_a_column_added_by_others_meanwhile_is_left_null(tmp_path: Path) -> None:
    sink = opened(tmp_path)
    DeltaTable(str(tmp_path / "t")).alter.add_columns([Field("theirs", PrimitiveType("long"))])
    sink.commit([chunk(range(2))])
    assert read(tmp_path, "trace_id", "theirs") == [("0:0", None), ("0:1", None)]


def test_compaction_by_others_goes_on_beside_the_commits(tmp_path: Path) -> None:
    sink = opened(tmp_path)
    for start in range(0, 10, 2):
        sink.commit([chunk(range(start, start + 2))])
    DeltaTable(str(tmp_path / "t")).optimize.compact()
    assert sink.commit([chunk(range(10, 12))]).result == "ok"
    assert ids(tmp_path) == names(0, range(12))


def test_a_handle_is_reopened_after_so_many_commits_and_after_so_long(tmp_path: Path) -> None:
    def opens(sink: DeltaSink) -> int:
        count = 0
        real = sink._source.open

        def counted() -> DeltaTable:
            nonlocal count
            count += 1
            return real()

        sink._source.open = counted  # type: ignore[method-assign] # the one place to count
        start = sink.positions([P0])[P0]
        for n in range(start, start + 7):
            sink.commit([chunk([n])])
        return count - 1

    assert opens(opened(tmp_path, reopen_commits=3)) == 2
    assert opens(opened(tmp_path, reopen_seconds=900.0)) == 0
    assert opens(opened(tmp_path, reopen_seconds=0.0)) == 7
    assert ids(tmp_path) == names(0, range(21))


def test_a_caller_s_mistake_is_told_before_anything_is_written(tmp_path: Path) -> None:
    sink = opened(tmp_path)
    with pytest.raises(ValueError, match="offsets"):
        sink.commit([chunk(range(5), next_offset=4)])
    with pytest.raises(ValueError, match="columns"):
        sink.commit([chunk(range(5), spec=ATTACHMENTS)])
    assert ids(tmp_path) == []


def test_a_large_batch_of_many_days_is_one_commit(tmp_path: Path) -> None:
    sink = opened(tmp_path)
    start = DAY.toordinal()
    many = chunk(range(100_000), day=lambda n: dt.date.fromordinal(start + n % 5), raw_json="{}")
    assert sink.commit([many]) == Committed("ok", 100_000, 0)
    table = DeltaTable(str(tmp_path / "t"))
    assert (table.version(), len(table.partitions())) == (1, 5)
    assert len(set(ids(tmp_path))) == 100_000

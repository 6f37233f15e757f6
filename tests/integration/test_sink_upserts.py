from __future__ import annotations

import datetime as dt
import json
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import CommitProperties, DeltaTable, Transaction
from sinks import DAY, P0, P1, Fault, Observed, chunk, ids, names, opened, read

from pipelined.errors import DependencyError
from pipelined.lake import upsert
from pipelined.lake.schemas import ATTACHMENTS
from pipelined.lake.sink import Chunk


def results(offsets: Iterable[int], status: str, **options: Any) -> Chunk:
    return chunk(offsets, spec=ATTACHMENTS, status=status, **options)


@pytest.fixture
def merges(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of rows of each MERGE."""
    counted: list[int] = []
    real = upsert.Upsert.merge

    def merge(self: upsert.Upsert, table: DeltaTable, rows: pa.Table, *rest: Any) -> None:
        counted.append(rows.num_rows)
        real(self, table, rows, *rest)

    monkeypatch.setattr(upsert.Upsert, "merge", merge)
    return counted


def test_a_replay_replaces_the_row_and_new_keys_are_a_plain_append(tmp_path: Path, merges: list[int]) -> None:
    sink = opened(tmp_path, ATTACHMENTS)
    sink.commit([results(range(4), "failed")])
    sink.commit([results(range(4, 6), "completed")])
    assert merges == []
    sink.commit([results([6, 7], "completed", ids=lambda n: {6: "2", 7: "new"}[n])])
    assert merges == [2]
    assert read(tmp_path, "trace_id", "status") == [
        ("0:0", "failed"),
        ("0:1", "failed"),
        ("0:2", "completed"),
        ("0:3", "failed"),
        ("0:4", "completed"),
        ("0:5", "completed"),
        ("0:new", "completed"),
    ]
    assert sink.positions([P0]) == {P0: 8}


def test_the_last_of_several_results_of_one_attachment_in_a_batch_wins(tmp_path: Path) -> None:
    sink = opened(tmp_path, ATTACHMENTS)
    sink.commit(
        [results([0, 1], "failed", ids=lambda _n: "x"), results([2], "completed", ids=lambda _n: "x")]
    )
    assert read(tmp_path, "trace_id", "status") == [("0:x", "completed")]
    sink.commit([results([3], "failed", ids=lambda _n: "x"), results([4], "completed", ids=lambda _n: "x")])
    assert read(tmp_path, "trace_id", "status") == [("0:x", "completed")]


def test_keys_that_an_earlier_process_stored_are_known(tmp_path: Path, merges: list[int]) -> None:
    opened(tmp_path, ATTACHMENTS).commit([results(range(4), "failed")])
    opened(tmp_path, ATTACHMENTS).commit([results(range(4, 8), "completed", ids=lambda n: str(n - 4))])
    assert merges == [4]
    assert {status for (status,) in read(tmp_path, "status")} == {"completed"}
    assert ids(tmp_path) == names(0, range(4))


def test_keys_of_many_days_beyond_the_limit_are_still_told_apart(tmp_path: Path, merges: list[int]) -> None:
    def day(n: int) -> dt.date:
        return dt.date.fromordinal(DAY.toordinal() + n % 10)

    sink = opened(tmp_path, ATTACHMENTS, known_keys=30)
    sink.commit([results(range(100), "failed", day=day)])
    assert len(sink._keys) <= 30
    sink.commit([results(range(100, 110), "completed", ids=lambda n: str(n - 100), day=day)])
    assert merges == [10]
    sink.commit([results(range(110, 120), "completed", day=day)])
    assert merges == [10]
    assert len(sink._keys) <= 30
    rows = read(tmp_path, "trace_id", "status")
    assert [trace for trace, _ in rows] == sorted(names(0, range(100)) + names(0, range(110, 120)))
    assert sum(status == "completed" for _, status in rows) == 20


def test_a_day_of_more_keys_than_are_kept_is_merged_and_stays_right(
    tmp_path: Path, merges: list[int]
) -> None:
    sink = opened(tmp_path, ATTACHMENTS, known_keys=5)
    sink.commit([results(range(10), "failed")])
    sink.commit([results(range(10, 20), "completed", ids=lambda n: str(n - 5))])
    assert merges == [10]
    assert len(sink._keys) == 0
    rows = read(tmp_path, "trace_id", "status")
    assert [trace for trace, _ in rows] == names(0, range(15))
    assert sum(status == "completed" for _, status in rows) == 10


def test_keys_of_a_commit_that_failed_are_not_taken_for_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, merges: list[int]
) -> None:
    sink = opened(tmp_path, ATTACHMENTS)
    fault = Fault(monkeypatch, *[("before", OSError("reset"))] * 9)
    with pytest.raises(DependencyError):
        sink.commit([results(range(3), "failed")])
    fault.plan.clear()
    sink.commit([results(range(3), "failed")])
    assert merges == []
    assert ids(tmp_path) == names(0, range(3))


def test_a_replay_whose_first_commit_happened_unseen_does_not_double_the_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = opened(tmp_path, ATTACHMENTS)
    sink.commit([results([0], "failed", ids=lambda _n: "x")])
    Fault(monkeypatch, ("after", OSError("reset")))
    sink.commit([results([1], "failed", ids=lambda _n: "y")])
    sink.commit([results([2, 3], "completed", ids=lambda n: "xy"[n - 2])])
    assert read(tmp_path, "trace_id", "status") == [("0:x", "completed"), ("0:y", "completed")]


def test_a_merge_that_commits_nothing_still_moves_the_positions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = opened(tmp_path, ATTACHMENTS)
    sink.commit([results(range(3), "failed")])
    monkeypatch.setattr(upsert.Upsert, "merge", lambda *_args: None)
    sink.commit([results([3], "failed", ids=lambda _n: "0")])
    assert opened(tmp_path, ATTACHMENTS).positions([P0]) == {P0: 4}
    assert ids(tmp_path) == names(0, range(3))


def test_a_merge_names_the_days_of_its_batch_as_literals(tmp_path: Path) -> None:
    sink = opened(tmp_path, ATTACHMENTS)
    sink.commit([results(range(3), "failed")])
    sink.commit([results([3], "failed", ids=lambda _n: "0")])
    log = (tmp_path / "t" / "_delta_log" / f"{2:020}.json").read_text().splitlines()
    told = json.loads(log[0])["commitInfo"]
    assert told["operation"] == "MERGE"
    # Without the literal every file of the table would be read: this is what prunes them.
    assert "event_date = '2026-01-05'" in told["operationParameters"]["predicate"]


def test_what_the_table_layer_does_with_a_merge_of_nothing_is_still_as_we_know_it(tmp_path: Path) -> None:
    opened(tmp_path, ATTACHMENTS).commit([results(range(3), "failed")])
    table = DeltaTable(str(tmp_path / "t"))
    before = table.version()
    properties = CommitProperties(app_transactions=[Transaction("x", 1)])
    merger = table.merge(
        results([0], "failed").rows, "t.trace_id = s.trace_id", "s", "t", commit_properties=properties
    )
    merger.when_matched_update({"status": "s.status"}, predicate="t.status <> s.status").execute()
    assert (table.version(), table.transaction_version("x")) == (before, None)


def test_a_sink_whose_keys_are_out_of_date_learns_them_before_it_writes(tmp_path: Path) -> None:
    observer = Observed()
    one, two = opened(tmp_path, ATTACHMENTS, observer=observer), opened(tmp_path, ATTACHMENTS)
    one.commit([results(range(2), "failed")])
    two.commit([results([2, 3], "failed")])
    one.commit([results(range(2), "failed", partition=P1)])
    # Partition 0 comes back to the first one, which has never seen the keys 2 and 3.
    one.commit([results([4, 5], "completed", ids=lambda n: str(n - 2))])
    assert observer.results == ["ok", "ok", "ok"]
    assert read(tmp_path, "trace_id", "status") == [
        ("0:0", "failed"),
        ("0:1", "failed"),
        ("0:2", "completed"),
        ("0:3", "completed"),
        ("1:0", "failed"),
        ("1:1", "failed"),
    ]


def test_the_fence_refuses_a_writer_that_another_overtook_at_the_last_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    observer = Observed()
    one, two = opened(tmp_path, ATTACHMENTS, observer=observer), opened(tmp_path, ATTACHMENTS)
    one.commit([results([0], "failed", ids=lambda _n: "x")])
    real = upsert.Upsert.latest
    overtaken = []

    def latest(self: upsert.Upsert, rows: pa.Table) -> Any:
        if not overtaken:
            overtaken.append(True)
            two.commit([results([0], "failed", partition=P1)])
        return real(self, rows)

    monkeypatch.setattr(upsert.Upsert, "latest", latest)
    assert one.commit([results([1], "completed")]).result == "ok"
    assert observer.results == ["ok", "conflict", "ok"]
    assert ids(tmp_path) == ["0:1", "0:x", "1:0"]


def test_two_upserting_writers_at_full_speed_keep_one_row_for_each_key(tmp_path: Path) -> None:
    errors: list[BaseException] = []

    def run(number: int) -> None:
        sink = opened(tmp_path, ATTACHMENTS)
        try:
            for n in range(0, 40, 4):
                sink.commit(
                    [results(range(n, n + 4), str(n), partition=("r", number), ids=lambda n: str(n % 8))]
                )
        except BaseException as error:  # noqa: BLE001 - shown by the assertion below
            errors.append(error)

    opened(tmp_path, ATTACHMENTS)
    threads = [threading.Thread(target=run, args=(n,)) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    rows = read(tmp_path, "trace_id", "status")
    assert [trace for trace, _ in rows] == sorted(names(0, range(8)) + names(1, range(8)))
    assert {status for _, status in rows} == {"32", "36"}

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError
from sinks import P0, P1, chunk, ids, make, names, opened, read

from pipelined.auth import STORAGE_SCOPE, provider
from pipelined.config.auth import Auth
from pipelined.errors import AuthError, ConfigError, DependencyError
from pipelined.lake import table
from pipelined.lake.schemas import ATTACHMENTS, EVENTS, TableSpec
from pipelined.lake.table import storage_options


def test_a_missing_table_is_created_partitioned_with_its_properties(tmp_path: Path) -> None:
    opened(tmp_path, checkpoint_commits=7, log_retention_hours=1.5)
    table = DeltaTable(str(tmp_path / "t"))
    assert table.metadata().partition_columns == ["event_date"]
    assert table.metadata().configuration == {
        "delta.checkpointInterval": "7",
        "delta.logRetentionDuration": "interval 5400 seconds",
        "delta.deletedFileRetentionDuration": "interval 172800 seconds",
        "delta.dataSkippingStatsColumns": "event_time,ingested_at,trace_id",
    }
    assert [field.name for field in table.schema().fields] == EVENTS.schema.names


def test_an_existing_table_is_opened_and_its_rows_stay(tmp_path: Path) -> None:
    opened(tmp_path).commit([chunk(range(3))])
    assert opened(tmp_path).positions([P0, P1]) == {P0: 3, P1: 0}
    assert ids(tmp_path) == names(0, range(3))


def test_ten_writers_that_create_one_table_at_once_all_write_to_the_same(tmp_path: Path) -> None:
    errors: list[BaseException] = []

    def run(number: int) -> None:
        try:
            opened(tmp_path).commit([chunk(range(2), ("t", number))])
        except BaseException as error:  # noqa: BLE001 - shown by the assertion below
            errors.append(error)

    threads = [threading.Thread(target=run, args=(n,)) for n in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert ids(tmp_path) == sorted(f"{n}:{offset}" for n in range(10) for offset in range(2))


def test_a_table_whose_log_cannot_be_read_is_never_created_over(tmp_path: Path) -> None:
    opened(tmp_path).commit([chunk(range(3))])
    log = tmp_path / "t" / "_delta_log"
    first = log / f"{0:020}.json"
    first.rename(tmp_path / "aside")
    before = sorted(path.name for path in log.iterdir())
    with pytest.raises(DependencyError):
        opened(tmp_path)
    assert sorted(path.name for path in log.iterdir()) == before
    (tmp_path / "aside").rename(first)
    assert ids(tmp_path) == names(0, range(3))


def test_a_table_that_seems_missing_for_a_moment_is_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(tmp_path).commit([chunk(range(3))])

    class Unseen(DeltaTable):
        seen = False

        def __new__(cls, *args: Any, **kwargs: Any) -> Any:
            if not Unseen.seen:
                Unseen.seen = True
                raise TableNotFoundError("not here")
            return DeltaTable(*args, **kwargs)

    monkeypatch.setattr(table, "DeltaTable", Unseen)
    assert opened(tmp_path).positions([P0]) == {P0: 3}
    assert Unseen.seen
    assert ids(tmp_path) == names(0, range(3))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda s: s.remove(s.get_field_index("note")), "column note is missing; wanted: string"),
        (
            lambda s: s.set(s.get_field_index("version"), pa.field("version", pa.int64())),
            "column version is long; wanted: string",
        ),
        (
            lambda s: s.set(s.get_field_index("attachments"), pa.field("attachments", pa.string())),
            "column attachments is string; wanted: list of string",
        ),
        (
            lambda s: s.append(pa.field("theirs", pa.string(), nullable=False)),
            "column theirs, which is not ours, must allow null",
        ),
    ],
)
def test_a_table_that_does_not_fit_is_refused_naming_the_column(
    tmp_path: Path, change: Callable[[pa.Schema], pa.Schema], told: str
) -> None:
    DeltaTable.create(str(tmp_path / "t"), change(EVENTS.schema), partition_by=["event_date"])
    with pytest.raises(ConfigError, match=told):
        opened(tmp_path)


def test_a_table_that_is_partitioned_otherwise_is_refused(tmp_path: Path) -> None:
    DeltaTable.create(str(tmp_path / "t"), EVENTS.schema)
    with pytest.raises(ConfigError, match=r"partitioned by \[\]; wanted: \['event_date'\]"):
        opened(tmp_path)


@pytest.mark.parametrize("spec", [EVENTS, ATTACHMENTS], ids=["append", "upsert"])
def test_columns_of_others_and_another_order_are_tolerated(tmp_path: Path, spec: TableSpec) -> None:
    fields = [pa.field("theirs", pa.int32()), *reversed(list(spec.schema))]
    DeltaTable.create(str(tmp_path / "t"), pa.schema(fields), partition_by=["event_date"])
    sink = opened(tmp_path, spec)
    sink.commit([chunk(range(2), spec=spec, assignment_id="A")])
    sink.commit([chunk(range(2, 4), spec=spec, assignment_id="B", ids=lambda n: str(n - 1))])
    rows = read(tmp_path, "trace_id", "assignment_id")
    again = [("0:1", "B")] if spec is ATTACHMENTS else [("0:1", "A"), ("0:1", "B")]
    assert rows == [("0:0", "A"), *again, ("0:2", "B")]
    assert {theirs for (theirs,) in read(tmp_path, "theirs")} == {None}


def test_a_local_folder_that_the_table_layer_would_mistake_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="contains '%'"):
        make(tmp_path / "a%20b")


def test_a_folder_with_spaces_and_umlauts_works(tmp_path: Path) -> None:
    folder = tmp_path / "möbel und so"
    opened(folder).commit([chunk(range(2))])
    assert ids(folder) == names(0, range(2))


def test_the_token_is_asked_for_each_time_the_table_is_opened(tmp_path: Path) -> None:
    token = tmp_path / "token"
    url = "abfss://ws@onelake.dfs.fabric.microsoft.com/item/Tables/t"
    tokens = provider(Auth(method="token_file", token_file=str(token)), STORAGE_SCOPE)
    for secret in ("first", "second"):
        token.write_text(secret)
        assert storage_options(url, tokens)["bearer_token"] == secret
    token.unlink()
    with pytest.raises(AuthError, match="cannot be read"):
        storage_options(url, tokens)
    assert "bearer_token" not in storage_options(url, provider(Auth(), STORAGE_SCOPE))
    assert storage_options(tmp_path.as_uri(), tokens) == {}


def test_a_commit_names_what_it_moved_in_the_log(tmp_path: Path) -> None:
    opened(tmp_path).commit([chunk(range(3))])
    lines = (tmp_path / "t" / "_delta_log" / f"{1:020}.json").read_text().splitlines()
    txns = [json.loads(line)["txn"] for line in lines if "txn" in line]
    assert txns == [{"appId": "writer/xact.events.ingested/0", "version": 3}]

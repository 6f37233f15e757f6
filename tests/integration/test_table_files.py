"""The files of a table: on a local disk, and behind an object store's listing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import obstore.store
import pytest
from sinks import chunk, opened

from pipelined.lake import files
from pipelined.lake.files import TableFiles

URL = "abfss://ws@onelake.dfs.fabric.microsoft.com/item/Tables/t"


@pytest.fixture(params=["folder", "object store"])
def stored(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TableFiles:
    """A table of two commits, reached in either way."""
    sink = opened(tmp_path)
    sink.commit([chunk(range(2))])
    sink.commit([chunk(range(2, 4))])
    (tmp_path / "t" / "event_date=2026-01-05" / "part-9.parquet#1").write_bytes(b"half")
    (tmp_path / "t" / "_delta_log" / f"{9:020}.json#12").write_bytes(b"half a commit")
    if request.param == "folder":
        return TableFiles((tmp_path / "t").as_uri(), {})
    store = obstore.store.LocalStore(tmp_path / "t")
    monkeypatch.setattr(files, "_object_store", lambda _url, _options: store)
    return TableFiles(URL, {})


def test_commits_are_read_action_by_action_and_a_missing_one_is_none(stored: TableFiles) -> None:
    actions = stored.commit(2)
    assert actions is not None
    kinds = [kind for action in actions for kind in action]
    assert sorted(kinds) == ["add", "commitInfo", "txn"]
    assert next(action["txn"]["version"] for action in actions if "txn" in action) == 4
    assert stored.commit(3) is None


def test_data_files_are_listed_with_their_sizes_and_the_log_is_not(
    stored: TableFiles, tmp_path: Path
) -> None:
    found = {file.path: file for file in stored.data()}
    assert len(found) == 2
    for path, file in found.items():
        stat = (tmp_path / "t" / path).stat()
        assert file.size == stat.st_size
        assert abs(file.modified - stat.st_mtime) < 1


def test_what_a_killed_writer_left_is_found_on_a_local_disk(tmp_path: Path) -> None:
    opened(tmp_path)
    left = tmp_path / "t" / "part-9.parquet#1"
    left.write_bytes(b"half")
    here = TableFiles((tmp_path / "t").as_uri(), {})
    (file,) = here.staging()
    assert (file.path, file.size) == ("part-9.parquet#1", 4)
    assert here.remove(file)
    assert not here.remove(file)
    assert not left.exists()


def test_an_object_store_is_opened_with_the_token_of_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}
    monkeypatch.setattr("obstore.store.from_url", lambda url, **options: asked.update(options, url=url))
    store = TableFiles(URL, {"bearer_token": "secret", "timeout": "30s"})
    assert asked["url"] == URL
    assert asked["credential_provider"]() == {"token": "secret", "expires_at": None}
    assert [*store.staging()] == []

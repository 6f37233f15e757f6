from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipelined.config.tree import Config, Tables, Upload
from pipelined.stats import disks
from pipelined.stats.disks import DISK_METRICS, DiskCollector


def samples(config: Config) -> dict[str, dict[str, float]]:
    return {
        family.name: {sample.labels["folder"]: sample.value for sample in family.samples}
        for family in DiskCollector(config).collect()
    }


def test_each_local_folder_has_the_free_bytes_and_the_size_of_its_disk(tmp_path: Path) -> None:
    config = Config(
        state_dir=str(tmp_path),
        cache_dir=str(tmp_path / "not" / "made yet"),
        upload=Upload(url=f"file://{tmp_path}/some%20files"),
        tables=Tables(url=f"file://{tmp_path}"),
    )
    found = samples(config)
    assert set(found) == {name for name, *_ in DISK_METRICS}
    total = shutil.disk_usage(tmp_path).total
    assert found["pipelined_disk_size_bytes"] == dict.fromkeys(("state", "cache", "files", "tables"), total)
    assert all(0 < free < total for free in found["pipelined_disk_free_bytes"].values())


def test_what_lies_in_an_object_store_is_on_no_disk(tmp_path: Path) -> None:
    config = Config(
        state_dir=str(tmp_path),
        cache_dir=str(tmp_path),
        upload=Upload(url="abfss://files@account.dfs.core.windows.net/x"),
        tables=Tables(url="s3://tables"),
    )
    assert set(samples(config)["pipelined_disk_free_bytes"]) == {"state", "cache"}


def test_a_disk_that_cannot_be_asked_has_no_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(_: Path) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(disks.shutil, "disk_usage", gone)
    config = Config(state_dir=str(tmp_path), cache_dir=str(tmp_path))
    assert all(found == {} for found in samples(config).values())

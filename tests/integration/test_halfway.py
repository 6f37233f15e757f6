"""The first half of an append: data files under their names, and no commit, however long one waits."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable, write_deltalake

import pipelined

PROGRAM = """
import os, sys, time
from pathlib import Path
import pyarrow as pa
from deltalake import DeltaTable
from pipelined.lake.halfway import write_data_only
folder = Path(sys.argv[1])
rows = pa.table({"day": ["monday", "tuesday"], "number": [3, 4]})
write_data_only(DeltaTable(str(folder)), rows, folder, {"mode": "append"})
time.sleep(0.3)
os._exit(9)
"""


def test_a_data_file_appears_and_no_commit_follows(tmp_path: Path) -> None:
    write_deltalake(str(tmp_path), pa.table({"day": ["monday"], "number": [1]}), partition_by=["day"])
    before = set(tmp_path.rglob("*.parquet"))
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)],
        env={"PYTHONPATH": str(Path(pipelined.__file__).parents[1])},
        timeout=60,
        check=False,
    )
    assert ended.returncode == 9
    orphans = set(tmp_path.rglob("*.parquet")) - before
    assert orphans
    for orphan in orphans:  # each is whole
        assert pq.read_metadata(orphan).num_rows > 0
    table = DeltaTable(str(tmp_path))
    assert (table.version(), table.to_pyarrow_table().to_pylist()) == (0, [{"day": "monday", "number": 1}])

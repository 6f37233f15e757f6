"""Maintenance killed at any moment, again and again, while a sink writes: the rows are none the worse."""

from __future__ import annotations

import os
import random
import secrets
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from deltalake import DeltaTable
from sinks import P0, SETTINGS, chunk, ids, make, names, opened

from pipelined.lake.inspection import Inspection
from pipelined.lake.maintenance import Maintenance
from pipelined.lake.schemas import EVENTS

#: So eager that a kill nearly always hits something.
EAGER: dict[str, Any] = {"checkpoint_commits": 5, "log_commits": 5, "small_files": 2, "reopen_commits": 7}
KILLS = 6

LOOP = """
import dataclasses, pathlib, sys
sys.path.insert(0, sys.argv[2])
from sinks import SETTINGS, make
from test_maintenance_killed import EAGER
from pipelined.lake import log
from pipelined.lake.maintenance import Maintenance

log._READING_S = 0
keeper = Maintenance(make(pathlib.Path(sys.argv[1]), **EAGER)._source, dataclasses.replace(SETTINGS, **EAGER))
print("ready", flush=True)
while True:
    keeper.round(0)
    keeper.tend()
    keeper.vacuum(24)
    keeper.checkpoint()
"""


def test_maintenance_killed_at_any_moment_loses_and_doubles_nothing(tmp_path: Path) -> None:
    seed = int(os.environ.get("CHAOS_SEED") or secrets.randbelow(1_000_000))
    print(f"the moments come from CHAOS_SEED={seed}")
    rng = random.Random(seed)
    sink = opened(tmp_path, **EAGER)
    stored = 0
    for _ in range(KILLS):
        process = subprocess.Popen(
            [sys.executable, "-c", LOOP, str(tmp_path), str(Path(__file__).parent)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n", process.stderr and process.stderr.read()
            end = time.monotonic() + rng.uniform(0.05, 0.6)
            while time.monotonic() < end:
                sink.commit([chunk(range(stored, stored + 2))])
                stored += 2
            assert process.poll() is None, process.stderr and process.stderr.read()
        finally:
            process.kill()
            process.communicate()
    sink.commit([chunk(range(stored, stored + 2))])
    assert ids(tmp_path) == names(0, range(stored + 2))
    found = Inspection(make(tmp_path)._source, EVENTS.identity, "writer", [P0]).check(None)
    assert (found.problems, found.doubled) == ([], [])
    assert opened(tmp_path).positions([P0]) == {P0: stored + 2}

    # What the killed ones left is removed once it is old.
    for file in (tmp_path / "t").rglob("*"):
        if file.is_file():
            os.utime(file, (time.time() - 3 * 24 * 3600,) * 2)
    Maintenance(make(tmp_path)._source, SETTINGS).vacuum(0)
    named = {Path(uri).name for uri in DeltaTable(str(tmp_path / "t")).file_uris()}
    assert {file.name for file in (tmp_path / "t").rglob("part-*")} == named
    assert ids(tmp_path) == names(0, range(stored + 2))

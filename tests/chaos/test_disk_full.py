"""The disk is full under the cache folder, or under the tables: a pause, and nothing is lost."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import realparts
from flow import Flow, event, trace_ids
from pipelined.local.fileserver import file_path

pytestmark = pytest.mark.timeout(150)

_SIZE = 2 << 20
_BALLAST = "ballast"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={_SIZE}", "none", folder],
        capture_output=True,
        text=True,
        check=False,
    )
    realparts.require("a file system of its own (mount, as root)", mounted.stderr or None)
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def fill(disk: Path, free: int = 0) -> Path:
    """Fill the disk but for so many bytes; remove the returned file to free it again."""
    ballast = disk / _BALLAST
    with ballast.open("wb", buffering=0) as output:
        try:
            while True:
                output.write(b"\0" * 4096)
        except OSError:
            output.truncate(max(0, output.tell() - free))
    return ballast


def load_attachments(flow: Flow, count: int) -> None:
    flow.load(
        event(trace, [flow.files_url + file_path("ok", 60_000, number, "GENERIC.pdf")])
        for number, trace in enumerate(trace_ids(count))
    )


def test_a_full_cache_folder_pauses_the_download_until_there_is_room(flow: Flow, small_disk: Path) -> None:
    flow.configure({"cache_dir": str(small_disk / "cache")})
    flow.start()
    load_attachments(flow, 3)
    flow.settle()
    ballast = fill(small_disk)
    load_attachments(flow, 30)
    worker = flow.until_worker("download", lambda worker: worker["paused"], "pauses")
    assert worker["failures"]["dependency_down"] > 0
    assert worker["dead_letters"] == {}
    flow.until_logged("no space left")
    code, reasons = flow.http("/readyz")
    assert (code, "download[0]: paused" in reasons) == (503, True)

    ballast.unlink()
    balance = flow.settle()
    assert (balance.completed, balance.failed) == (33, 0)
    assert flow.http("/readyz") == (200, "ok\n")
    assert flow.workers()["download"]["restarts"] == 0


def test_a_full_disk_under_the_tables_keeps_the_rows_until_there_is_room(
    flow: Flow, small_disk: Path
) -> None:
    flow.configure({"tables.url": f"file://{small_disk}/tables"})
    flow.start()
    load_attachments(flow, 3)
    flow.settle()
    ballast = fill(small_disk)
    load_attachments(flow, 30)
    for name in ("event-writer", "result-processor"):
        worker = flow.until_worker(name, lambda worker: worker["paused"], "pauses")
        assert worker["failures"]["dependency_down"] > 0
    flow.until_logged("no room to write table")
    assert flow.http("/readyz")[0] == 503

    ballast.unlink()
    balance = flow.settle()
    assert (balance.rows, balance.completed) == (33, 33)
    assert flow.http("/readyz") == (200, "ok\n")
    assert all(worker["restarts"] == 0 for worker in flow.status()["workers"])

"""Somebody empties the cache folder under the daemon: it says so, and fetches again what was in it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from flow import Flow, event, trace_ids
from pipelined.local.fileserver import file_path
from waiting import until

pytestmark = pytest.mark.timeout(150)

#: One that stays in memory until it is placed, and one that is written while it comes.
SIZES = (5_000, 200_000)
COUNT = 60


def content_of(cache: Path) -> None:
    """As ``find CACHE -mindepth 1 -delete`` would."""
    for entry in list(cache.iterdir()):
        shutil.rmtree(entry, ignore_errors=True)


def folder_itself(cache: Path) -> None:
    """As ``rm -rf CACHE`` would."""
    until(lambda: shutil.rmtree(cache, ignore_errors=True) or not cache.exists(), "it is gone", 10)


def load_attachments(flow: Flow, fault: str = "ok", count: int = COUNT) -> None:
    lines = (
        event(
            trace,
            [flow.files_url + file_path(fault, SIZES[number % 2], hash(trace) & 0xFFFFFFFF, "GENERIC.pdf")],
        )
        for number, trace in enumerate(trace_ids(count))
    )
    flow.load_whatever_happens(flow.write(lines))


def cached_files(flow: Flow) -> list[Path]:
    return list(Path(flow.config.cache_dir).glob("[!.]*/*"))


@pytest.mark.parametrize("empty", [content_of, folder_itself])
def test_files_that_vanish_between_download_and_upload_are_fetched_again(
    flow: Flow, empty: Callable[[Path], None]
) -> None:
    flow.start()
    assert flow.ctl("stop", "upload").returncode == 0
    load_attachments(flow)
    until(lambda: len(cached_files(flow)) == COUNT, "all files are fetched")
    flow.until_worker("download", lambda worker: worker["records_out"] >= COUNT, "has committed them")
    empty(Path(flow.config.cache_dir))
    assert flow.ctl("start", "upload").returncode == 0
    balance = flow.settle()
    assert (balance.completed, balance.failed) == (COUNT, 0)
    flow.until_logged("cached files are not here")
    flow.until_logged("cache_file_missing")
    assert flow.workers()["upload"]["dead_letters"] == {}
    until(lambda: not cached_files(flow), "nothing is left in the cache")


@pytest.mark.parametrize("empty", [content_of, folder_itself])
def test_a_cache_folder_emptied_again_and_again_while_files_are_on_their_way_costs_nothing(
    flow: Flow, empty: Callable[[Path], None]
) -> None:
    flow.start()
    for round_ in range(1, 4):
        load_attachments(flow)
        load_attachments(flow, "slow", 20)  # under way for a second and a half
        flow.until_worker(
            "download",
            lambda worker, taken=80 * round_ - 40: worker["records_in"] >= taken and worker["in_flight"],
            "is at work",
        )
        empty(Path(flow.config.cache_dir))
    balance = flow.settle()
    assert (balance.completed, balance.failed) == (3 * (COUNT + 20), 0)
    flow.until_logged("somebody emptied the cache folder")
    status = flow.status()
    assert all(worker["restarts"] == 0 for worker in status["workers"]), status
    assert flow.workers()["download"]["failures"].get("dependency_down", 0) == 0, "nothing pauses"
    assert flow.stop() == 0

"""``slow-download``: one download of a minute among ten thousand quick ones costs these nothing."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.events import FILE_BYTES, Events
from benchmarks.fileserver import SLOW_BYTES, serving
from benchmarks.ground import Daemon, Ground, Message
from benchmarks.machine import durable_folder
from benchmarks.report import Check, Figure, Result
from benchmarks.tasks import tasks
from pipelined.messages.codec import decode, encode
from pipelined.messages.task import DownloadTask

NAME = "slow-download"

_METHOD = (
    "{count:,} download tasks of {size:,} bytes each lie on a topic of 4 partitions, as in `download`; "
    "on a second topic the same and, before the {place}th of them, one of {large:,} bytes that the same "
    "host answers in {slow:g} s. The worker is `pipelined run --worker download`, one process, default "
    "settings. The rate is that of the quick files, between its first commit and the one that makes them "
    "complete; the slow one is still under way then, and is committed when it is done. Files on {disk}. In "
    "turns."
)
_PLACE = 100


def run(ground: Ground, folder: Path, *, quick: bool, repetitions: int) -> Result:
    """Measure."""
    count, slow_s = (3_000, 15.0) if quick else (10_000, 60.0)
    without: list[float] = []
    beside: list[float] = []
    waited: list[float] = []
    with serving(FILE_BYTES, slow_s) as url, durable_folder(folder) as (place, disk):
        plain = ground.fill("downloads_pending", _tasks(url, count))
        mixed = ground.fill("downloads_pending", _with_a_slow_one(_tasks(url, count), url))
        for turn in range(repetitions):
            path = ground.config(inputs={"downloads_pending": plain}, files_url=url, folder=place)
            without.append(_rate(path, count)[0])
            path = ground.config(inputs={"downloads_pending": mixed}, files_url=url, folder=place)
            rate, seconds = _rate(path, count, slow_s if turn + 1 == repetitions else None)
            beside.append(rate)
            waited += [] if seconds is None else [seconds]
    figures = [
        Figure("without the slow download", "files/s", without),
        Figure("with it", "files/s", beside),
    ]
    ratio = figures[1].median / figures[0].median
    figures += [
        Figure("with it / without it", "ratio of medians", [ratio]),
        Figure("the slow one, from the first commit to its own", "s", waited),
    ]
    method = _METHOD.format(
        count=count, size=FILE_BYTES, place=_PLACE, large=SLOW_BYTES, slow=slow_s, disk=disk
    )
    return Result(NAME, "One slow download", method, figures, [Check("ratio", ratio, ">=", 0.95)])


def _tasks(url: str, count: int) -> Iterator[Message]:
    return tasks(Events(url, every=1, files=1), count)


def _with_a_slow_one(messages: Iterator[Message], url: str) -> Iterator[Message]:
    yield from itertools.islice(messages, _PLACE)
    key, value, headers = next(tasks(Events(url, every=1, files=1, series=2), 1))
    task = decode(value, DownloadTask)
    task.attachment_url = task.attachment_url.replace("/ok/", "/slow/", 1)
    yield key, encode(task), headers
    yield from messages


def _rate(path: Path, count: int, slow_s: float | None = None) -> tuple[float, float | None]:
    """Quick files a second through the real worker; with ``slow_s`` also when the slow one is there."""
    with Daemon(path, "download") as daemon:
        daemon.ready()
        first: tuple[float, int] | None = None
        rate: float | None = None
        deadline = time.monotonic() + 120 + (slow_s or 0.0)
        while True:
            done = int(daemon.worker("download")["records_out"])
            now = time.monotonic()
            if done and first is None:
                first = (now, done)
            if first and done >= count and rate is None:
                rate = (done - first[1]) / (now - first[0])
            if first and rate is not None and (slow_s is None or done > count):
                return rate, None if slow_s is None else now - first[0]
            if now > deadline:
                raise RuntimeError(f"only {done:,} of {count:,} files in time")
            time.sleep(0.025)

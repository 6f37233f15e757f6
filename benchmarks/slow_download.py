"""``slow-download``: one download of a minute among ten thousand quick ones costs these nothing."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.events import FILE_BYTES, Events
from benchmarks.fileserver import SLOW_BYTES, serving
from benchmarks.ground import Daemon, Ground, Message
from benchmarks.machine import cpu_seconds, durable_folder
from benchmarks.report import Check, Figure, Result
from benchmarks.tasks import tasks
from pipelined.messages.codec import decode, encode
from pipelined.messages.task import DownloadTask

NAME = "slow-download"

_METHOD = (
    "{count:,} download tasks of {size:,} bytes each lie on a topic of 4 partitions, as in `download`; "
    "on a second topic the same and, before the {place}th of them, one of {large:,} bytes that the same "
    "host answers in {slow:g} s. The worker is `pipelined run --worker download`, one process, default "
    "settings but for its end, where it does not wait for the slow file. The rate is that of the quick "
    "files, between its first commit and the one that makes them "
    "complete; the slow one is still under way then. The last run goes on until that is committed too. "
    "Files on {disk}. In turns, and in each pair of turns in the other order."
)
_PLACE = 100
_NO_DRAIN = "[workers.download]\ndrain_s = 1\n"


def run(ground: Ground, folder: Path, *, quick: bool, repetitions: int) -> Result:
    """Measure."""
    count, slow_s = (3_000, 15.0) if quick else (10_000, 60.0)
    without, beside = _Runs(), _Runs()
    waited: list[float] = []
    with serving(FILE_BYTES, slow_s) as url, durable_folder(folder) as (place, disk):
        plain = ground.fill("downloads_pending", _tasks(url, count))
        mixed = ground.fill("downloads_pending", _with_a_slow_one(_tasks(url, count), url))
        for turn in range(repetitions):
            pair = [(plain, without), (mixed, beside)]
            for topic, runs in pair[:: -1 if turn % 2 else 1]:
                inputs = {"downloads_pending": topic}
                path = ground.config(inputs=inputs, files_url=url, folder=place, more=_NO_DRAIN)
                last = topic == mixed and turn + 1 == repetitions
                seconds = runs.add(path, count, slow_s if last else None)
                waited += [] if seconds is None else [seconds]
    figures = [
        Figure("without the slow download", "files/s", without.rates),
        Figure("with it", "files/s", beside.rates),
    ]
    ratio = figures[1].median / figures[0].median
    figures += [
        Figure("with it / without it", "ratio of medians", [ratio]),
        Figure("processor time of the worker, without it", "µs/file", without.costs),
        Figure("processor time of the worker, with it", "µs/file", beside.costs),
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


class _Runs:
    """Runs of one kind: quick files a second through the real worker, and the processor time of each."""

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.costs: list[float] = []

    def add(self, path: Path, count: int, slow_s: float | None = None) -> float | None:
        """Run once; with ``slow_s`` until the slow file is there too, and return after how many seconds."""
        with Daemon(path, "download") as daemon:
            daemon.ready()
            pid = daemon.worker("download")["pid"]
            first: tuple[float, int, float] | None = None
            measured = False
            deadline = time.monotonic() + 120 + (slow_s or 0.0)
            while True:
                done = int(daemon.worker("download")["records_out"])
                now = time.monotonic()
                if done and first is None:
                    first = (now, done, cpu_seconds(pid))
                if first and done >= count:
                    if not measured:
                        measured = True
                        self.rates.append((done - first[1]) / (now - first[0]))
                        self.costs.append((cpu_seconds(pid) - first[2]) * 1e6 / (done - first[1]))
                    if slow_s is None:
                        return None
                    if done > count:
                        return now - first[0]
                if now > deadline:
                    raise RuntimeError(f"only {done:,} of {count:,} files in time")
                time.sleep(0.025)

"""``download``: files of 10 kB a second, fetched, hashed, durably placed and committed."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from benchmarks.events import FILE_BYTES, Events
from benchmarks.fileserver import serving
from benchmarks.ground import Daemon, Ground, run_bare
from benchmarks.machine import durable_folder
from benchmarks.report import Check, Figure, Result
from benchmarks.tasks import tasks

NAME = "download"

_METHOD = (
    "{count:,} download tasks lie on downloads.pending, 4 partitions; each file has {size:,} bytes and "
    "comes from one local server process (benchmarks/fileserver.py, http, keep-alive). The worker is "
    "`pipelined run --worker download`, one process, default settings, 50 transfers at once: every file "
    "is checked, hashed, synced, renamed and its folder synced before the transaction that speaks of it. "
    "Its counters are read every 25 ms over the control socket; the rate is that between its first and "
    "its last commit. Beside it the download stage alone, without Kafka, and bare libcurl: 50 transfers "
    "at once in one thread, each to its own file, nothing checked, hashed or synced. Files on {disk}. In "
    "turns."
)


def run(ground: Ground, folder: Path, *, quick: bool, repetitions: int) -> Result:
    """Measure."""
    count = 3_000 if quick else 12_000
    rates: dict[str, list[float]] = {"download worker": [], "download stage alone": [], "bare libcurl": []}
    with serving(FILE_BYTES) as url, durable_folder(folder) as (place, disk):
        topic = ground.fill("downloads_pending", tasks(Events(url, every=1, files=1), count))
        for turn in range(repetitions):
            path = ground.config(inputs={"downloads_pending": topic}, files_url=url, folder=place)
            rates["download worker"].append(_worker(path, count))
            path = ground.config(files_url=url, folder=place)
            for what, name in (("stage", "download stage alone"), ("curl", "bare libcurl")):
                answer = run_bare("bare_fetch", what, path, url, count, place / f"curl{turn}")
                rates[name].append(count / answer["seconds"])
            shutil.rmtree(place / f"curl{turn}")
    figures = [Figure(name, "files/s", samples) for name, samples in rates.items()]
    worker, stage, bare = (figure.median for figure in figures)
    return Result(
        NAME,
        "Files downloaded",
        _METHOD.format(count=count, size=FILE_BYTES, disk=disk),
        [
            *figures,
            Figure("download worker / stage alone", "ratio of medians", [worker / stage]),
            Figure("download worker / bare libcurl", "ratio of medians", [worker / bare]),
        ],
        [Check("download worker", worker, ">=", 3_000, "files/s")],
    )


def _worker(path: Path, count: int) -> float:
    """Files a second through the real worker."""
    with Daemon(path, NAME) as daemon:
        daemon.ready()
        first: tuple[float, int] | None = None
        deadline = time.monotonic() + 120
        while True:
            done = int(daemon.worker(NAME)["records_out"])
            now = time.monotonic()
            if done and first is None:
                first = (now, done)
            if done >= count:
                assert first is not None
                return (done - first[1]) / (now - first[0])
            if now > deadline:
                raise RuntimeError(f"only {done:,} of {count:,} files after 120 s")
            time.sleep(0.025)

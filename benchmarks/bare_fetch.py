"""Fetching without Kafka: bare pycurl to disk, and the package's download stage alone.

``python -m benchmarks.bare_fetch curl|stage CONFIG URL COUNT FOLDER`` prints the seconds it took, as JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import pycurl

from benchmarks.events import Events
from benchmarks.tasks import tasks
from pipelined.config import load
from pipelined.stages.contract import Done, Partition, Record
from pipelined.stages.download import DownloadStage
from pipelined.stats.slots import SharedStats

_AT_ONCE = 50


def curl(urls: list[bytes], folder: Path) -> float:
    """Fetch every URL into a file of its own, fifty at once; nothing is checked, hashed or synced."""
    folder.mkdir(parents=True)
    multi = pycurl.CurlMulti()
    multi.setopt(pycurl.M_MAXCONNECTS, _AT_ONCE)
    idle = []
    for _ in range(_AT_ONCE):
        handle = pycurl.Curl()
        handle.setopt(pycurl.BUFFERSIZE, 256 * 1024)
        handle.setopt(pycurl.NOSIGNAL, 1)
        idle.append(handle)
    files: dict[pycurl.Curl, int] = {}
    began = time.monotonic()
    waiting = list(enumerate(urls))
    while waiting or files:
        while waiting and idle:
            number, url = waiting.pop()
            handle = idle.pop()
            file = os.open(folder / str(number), os.O_WRONLY | os.O_CREAT, 0o640)
            files[handle] = file
            handle.setopt(pycurl.URL, url)
            handle.setopt(pycurl.WRITEFUNCTION, lambda data, file=file: os.write(file, data))
            multi.add_handle(handle)
        while multi.perform()[0] == pycurl.E_CALL_MULTI_PERFORM:
            pass
        left = 1
        while left:
            left, good, bad = multi.info_read()
            if bad:
                raise RuntimeError(f"a download failed: {bad[0][2]}")
            for handle in good:
                multi.remove_handle(handle)
                os.close(files.pop(handle))
                idle.append(handle)
        if files:
            multi.select(0.1)
    return time.monotonic() - began


def stage(path: str, values: list[bytes]) -> float:
    """Put tasks through the download stage, a window at a time, as the runtime does; no Kafka."""
    config = load(Path(path), environ={}).config
    stats = SharedStats({"download": 1}).slot("download", 0).child
    worker = DownloadStage(config, stats)
    partition = Partition("tasks", 0)
    records = [Record(partition, number, b"", value, [], 0) for number, value in enumerate(values)]
    window = config.worker("download").window_records
    done = submitted = 0
    began = time.monotonic()
    while done < len(records):
        free = window - (submitted - done)
        worker.submit(records[submitted : submitted + free])
        submitted = min(submitted + free, len(records))
        outcomes = worker.poll(0.01)
        if not all(isinstance(outcome, Done) for outcome in outcomes):
            raise RuntimeError(f"a download failed: {outcomes[0]}")
        done += len(outcomes)
    seconds = time.monotonic() - began
    worker.close()
    return seconds


if __name__ == "__main__":
    what, path, url, count, folder = sys.argv[1:]
    events = Events(url, every=1, files=1)
    if what == "curl":
        taken = curl([events.url(number, 0) for number in range(int(count))], Path(folder))
    else:
        taken = stage(path, [value for _, value, _ in tasks(events, int(count))])
    sys.stdout.write(json.dumps({"seconds": taken}) + "\n")

"""The local stack: a real Kafka, a file server and sources in a process of their own, with a configuration.

It is a process of its own because whoever starts it may have to stay without threads (the daemon's
parent), and must not take it down by a Ctrl-C that is meant for the daemon. It ends with its owner.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from pipelined.config import load
from pipelined.errors import PipelinedError, UnavailableError
from pipelined.local.fileserver import FileServer

__all__ = ["BOOTSTRAP_VARIABLE", "Stack"]

#: Points at an existing cluster instead of starting one.
BOOTSTRAP_VARIABLE = "KAFKA_BOOTSTRAP"

#: Delays between attempts in the local stack; the demo says that they are short.
RETRY_DELAYS_S = (1, 2, 4, 8)


class Stack:
    """Starts the parts and waits until they serve; a context manager.

    ``directory`` holds all they make, and the configuration ``pipelined.toml``; ``source`` is one of
    ``upstream.SOURCES``, by default none of them is started. Raises UnavailableError when a part cannot be
    had.
    """

    def __init__(self, directory: Path, source: str = "file") -> None:
        self._directory = directory.absolute()
        self._source = source
        self.bootstrap = ""
        self.files_url = ""
        self.config = self._directory / "pipelined.toml"

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "pipelined.local.stack", str(self._directory), self._source],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._end()
            msg = "the local stack could not be started (see above)"
            raise UnavailableError(msg)
        told = json.loads(line)
        self.bootstrap, self.files_url = told["bootstrap"], told["files_url"]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


def write_config(directory: Path, bootstrap: str, files_url: str, sources: str = "") -> Path:
    """Write the configuration of a daemon on the local stack; returns its path.

    ``sources`` are the sections of its sources.
    """
    port = urlsplit(files_url).port
    text = f"""# Written by the local stack at each start.
state_dir = "{directory}/state"
cache_dir = "{directory}/cache"
runtime_dir = "{directory}/state"

[kafka]
bootstrap = "{bootstrap}"
host = "local"
session_timeout_s = 10.0
transaction_timeout_s = 6.0

[topics]
replication_factor = 1
min_insync_replicas = 1
{_partitions()}
[urls]
allowed_hosts = ["127.0.0.1"]
allowed_ports = [443, {port}]
allow_http = true
allowed_networks = ["127.0.0.0/8"]

[download]
low_speed_s = 3.0

[upload]
url = "file://{directory}/files"

[tables]
url = "file://{directory}/tables"

[retry]
delays_s = {list(map(float, RETRY_DELAYS_S))}
pause_s = 1.0

[breaker]
# One host stands for all the hosts of production here, and has all of their faults.
failures = 200
open_s = 1.0

[endpoint]
port = 0
{sources}"""
    path = directory / "pipelined.toml"
    path.write_text(text)
    return path


def _partitions() -> str:
    wanted = dict.fromkeys(
        "events_raw events_ingested downloads_pending downloads_cached downloads_results".split(), 3
    ) | dict.fromkeys("events_dlq downloads_retry downloads_dlq".split(), 1)
    return "".join(f"[topics.{stream}]\npartitions = {count}\n" for stream, count in wanted.items())


def _serve(directory: Path, source: str) -> None:
    from pipelined.kafka import topics
    from pipelined.local.kafka import Cluster, ensure_kafka
    from pipelined.local.upstream import BOTH, EVENTHUB, Upstream

    directory.mkdir(parents=True, exist_ok=True)
    bootstrap = os.environ.get(BOOTSTRAP_VARIABLE, "")
    with contextlib.ExitStack() as stack:
        if source in (EVENTHUB, BOTH):
            ensure_kafka(progress=_progress)  # before two clusters ask for it at once
        with ThreadPoolExecutor(1) as pool:
            entering = pool.submit(stack.enter_context, Upstream(directory, source))
            if not bootstrap:
                cluster = Cluster(directory=directory / "kafka", progress=_progress)
                cluster.start()
                stack.callback(cluster.stop)
                bootstrap = cluster.bootstrap
            upstream = entering.result()
        files = stack.enter_context(FileServer())
        path = write_config(directory, bootstrap, files.url, upstream.config)
        config = load(path, environ={}).config
        topics.apply(config, topics.plan(config))
        sys.stdout.write(json.dumps({"bootstrap": bootstrap, "files_url": files.url}) + "\n")
        sys.stdout.flush()
        sys.stdin.read()  # until the owner closes it, or is gone


def _progress(what: str, done: int, total: int) -> None:
    if sys.stderr.isatty():
        end = "\n" if done >= total else ""
        sys.stderr.write(f"\r\033[K{what}: {done:,} of {total:,}{end}")
    elif done >= total:
        sys.stderr.write(f"{what}: done\n")
    sys.stderr.flush()


if __name__ == "__main__":
    try:
        _serve(Path(sys.argv[1]), sys.argv[2])
    except PipelinedError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(int(error.exit_code))

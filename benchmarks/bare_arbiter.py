"""gunicorn's arbiter with the libraries of our workers; its configuration and its application in one module.

``python -m gunicorn -c python:benchmarks.bare_arbiter benchmarks.bare_arbiter:application``, with a folder in
the environment variable ``BENCH_FOLDER``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from pipelined.supervisor.preload import preload

# Before the arbiter has a thread: as it is loaded, the configuration comes first.
preload(["pipelined.workers.catalogue"])

FOLDER = Path(os.environ["BENCH_FOLDER"])

bind = f"unix:{FOLDER}/gunicorn.sock"
workers = 8
worker_class = "sync"
preload_app = True
control_socket_disable = True
loglevel = "warning"


def post_worker_init(worker: Any) -> None:
    """The first of our lines in a worker that has made its preparations, as ours has."""
    del worker
    with (FOLDER / "starts").open("a") as starts:
        starts.write(f"0 {os.getpid()} {time.monotonic()}\n")


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Never asked."""
    del environ
    start_response("204 No Content", [])
    return []

"""A supervisor whose eight workers do nothing, with every library of the real ones; run by ``supervisor``."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from pipelined.config.leaves import built
from pipelined.config.tree import Config, Worker
from pipelined.stats.slots import SharedStats
from pipelined.supervisor.loop import Supervisor, WorkerSpec
from pipelined.supervisor.preload import preload

FOLDER = Path(sys.argv[-1])
WORKERS = 8


def entry(
    config: Config, worker: str, index: int, stats: SharedStats, should_stop: Callable[[], bool]
) -> int:
    """Note when it began; beat as a real worker does that waits for records."""
    del config
    with (FOLDER / "starts").open("a") as starts:
        starts.write(f"{index} {os.getpid()} {time.monotonic()}\n")
    child = stats.slot(worker, index).child
    child.ready()
    while not should_stop():
        child.beat()
        time.sleep(0.2)
    return 0


def main() -> int:
    """Serve until told to stop."""
    preload(["pipelined.workers.catalogue"])
    config = built(
        {
            "state_dir": str(FOLDER),
            "runtime_dir": str(FOLDER),
            "supervisor.backoff_first_s": 0.0,
            "supervisor.max_restarts": 10000,
        }
    )
    specs = [WorkerSpec("idle", WORKERS, Worker(processes=WORKERS))]
    stats = SharedStats({"idle": WORKERS}, config.supervisor.max_processes)
    return Supervisor(config, specs, entry, stats=stats).run()


if __name__ == "__main__":
    sys.exit(main())

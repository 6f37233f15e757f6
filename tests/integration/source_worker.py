"""The worker of a source in a process of its own, as a host runs it: run as a script, never imported.

The source has the rows that a file says, so that the next process goes on with the same one.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import signal
import sys
import time
from pathlib import Path

from kafka_tools import small
from pipelined.config.sources import Sources
from pipelined.crashpoints import Point, crashpoint, enter
from pipelined.workers.source import run_source
from records import slot
from source_parts import Numbered

WORKER = "eventhouse-poller"


def main() -> None:
    """Run until TERM."""
    order = json.loads(sys.argv[1])
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    rows = Path(order["rows"])
    config = small(
        order["bootstrap"],
        order["domain"],
        2,
        session_timeout_s=order["session_timeout_s"],
        sources=Sources(**order.get("sources", {})),
    )
    config = dataclasses.replace(config, kafka=dataclasses.replace(config.kafka, host=order["host"]))
    told = False

    def stop(*_: object) -> None:
        nonlocal told
        told = True

    def should_stop() -> bool:
        if told:
            crashpoint(Point.DRAINING)
        return told

    signal.signal(signal.SIGTERM, stop)
    enter(WORKER)
    stats = slot()
    stats.begin(os.getpid())

    def make(_: object) -> Numbered:
        slow = order.get("fetch_s", 0.0)

        def count() -> int:
            time.sleep(slow)
            return int(rows.read_text())

        return Numbered(count, page=order.get("page", 50))

    run_source(config, WORKER, 0, make, stats, should_stop)


if __name__ == "__main__":
    main()

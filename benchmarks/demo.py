"""``demo``: ``make run`` as a whole, from nothing to a balanced ledger."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from benchmarks.ground import Ground
from benchmarks.report import Check, Figure, Result

NAME = "demo"

_METHOD = (
    "`pipelined demo --events {count}` as a whole process, as `make run` calls it, with Kafka's jars in "
    "the cache: it starts a Kafka, a file server with faults and the daemon, makes the events, waits "
    "until every one of them is accounted for (retries of 1 to 8 s included), balances the ledger and "
    "stops everything."
)


def run(ground: Ground, folder: Path, *, quick: bool, repetitions: int) -> Result:
    """Measure; RuntimeError where the ledger does not balance."""
    del ground
    count = 1_000 if quick else 10_000
    samples = []
    for turn in range(repetitions):
        place = folder / f"demo{turn}"
        command = [
            sys.executable,
            "-m",
            "pipelined",
            "demo",
            "--events",
            str(count),
            "--directory",
            str(place),
        ]
        began = time.monotonic()
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        samples.append(time.monotonic() - began)
        if done.returncode != 0:
            raise RuntimeError(f"the demo ended with {done.returncode}:\n{done.stdout[-2000:]}")
    figure = Figure(f"make run, {count:,} events", "s", samples)
    return Result(
        NAME,
        "The first run",
        _METHOD.format(count=count),
        [figure],
        [Check("make run, cached", figure.median, "<=", 60, "s")],
    )

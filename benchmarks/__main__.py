"""``python -m benchmarks [NAME ...] [--quick]``: run benchmarks and write their results."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import (
    backfill,
    dedup,
    demo,
    download,
    eventhouse,
    eventhub,
    idle,
    ingester,
    latency,
    recovery,
    slow_download,
    sources,
    supervisor,
    table_growth,
    unharmed,
    window,
    writer,
)
from benchmarks.ground import Ground
from benchmarks.machine import about, load_average
from benchmarks.report import render, write

BENCHMARKS = {
    module.NAME: module
    for module in (
        ingester,
        dedup,
        writer,
        table_growth,
        window,
        latency,
        download,
        slow_download,
        sources,
        eventhub,
        eventhouse,
        idle,
        supervisor,
        recovery,
        unharmed,
        demo,
        backfill,
    )
}


def main() -> int:
    """Run the benchmarks named, or all; exit code 1 where a target is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of: {', '.join(BENCHMARKS)}; else all")
    parser.add_argument("--quick", action="store_true", help="short runs, no results written: does it work?")
    parser.add_argument("--repetitions", type=int, default=3, help="of each figure, in turns (3)")
    parser.add_argument("--directory", type=Path, help="for tables, files and logs; else a temporary folder")
    options = parser.parse_args()
    unknown = set(options.names) - set(BENCHMARKS)
    if unknown:
        parser.error(f"no benchmark named {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    missed = 0
    for name in options.names or BENCHMARKS:
        sys.stderr.write(f"{name} ...\n")
        began = time.monotonic()
        load_before = load_average()
        with (
            tempfile.TemporaryDirectory(prefix="pipelined-bench-", dir=options.directory) as folder,
            Ground(Path(folder)) as ground,
        ):
            result = BENCHMARKS[name].run(
                ground, Path(folder), quick=options.quick, repetitions=options.repetitions
            )
        result.about = about() | {
            "quick": options.quick,
            "load_before": load_before,
            "load_after": load_average(),
            "seconds": round(time.monotonic() - began, 1),
        }
        if not options.quick:
            write(result)
        missed += sum(not check.met for check in result.checks)
        print(render(result.as_json()), flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())

"""``event-ingester``: events a second through one process, beside the bare loop."""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks.events import Events
from benchmarks.ground import Daemon, Ground, run_bare
from benchmarks.machine import cpu_seconds
from benchmarks.report import Check, Figure, Result

NAME = "event-ingester"

_BATCH = 5000
_METHOD = (
    "{count:,} events of 0.95 kB (every fifth with one to three attachments, all valid, all new; made by "
    "benchmarks/events.py) lie on events.raw, 4 partitions, LZ4. The worker is `pipelined run --worker "
    "event-ingester`, one process, default settings (transactions of {batch:,} events); its counters are "
    "read every 25 ms over the control socket, and the rate is that between its first and its last "
    "commit. The bare loop is one process with the same client settings (read_committed, LZ4) that "
    "consumes {batch:,} at once, decodes each event whole with msgspec (typed), produces the same bytes "
    "and key again and commits offsets and messages in one transaction. The worker besides deduplicates, "
    "writes headers and a task for each attachment (0.4 a event). In turns."
)


def run(ground: Ground, folder: Path, *, quick: bool, repetitions: int) -> Result:
    """Measure."""
    del folder
    count = 40_000 if quick else 300_000
    events = Events("http://127.0.0.1:1")
    outputs = count + events.attachments(count)
    topic = ground.fill("events_raw", ((key, value, []) for key, value in events.range(count)))
    rates, bare_rates, cpu, bare_cpu = [], [], [], []
    for _ in range(repetitions):
        rate, seconds = _worker(ground, topic, count, outputs)
        rates.append(rate)
        cpu.append(seconds * 1e6)
        target = ground.fill("events_ingested", [])
        commits = run_bare("bare_hop", ground.config(), topic, target, count, _BATCH)["commits"]
        (began, first, used), (ended, last, used_at_end) = commits[0], commits[-1]
        bare_rates.append((last - first) / (ended - began))
        bare_cpu.append((used_at_end - used) / (last - first) * 1e6)
    worker = Figure("event-ingester", "events/s", rates)
    loop = Figure("bare loop", "events/s", bare_rates)
    return Result(
        NAME,
        "Events ingested",
        _METHOD.format(count=count, batch=_BATCH),
        [
            worker,
            loop,
            Figure("event-ingester, CPU", "µs/event", cpu),
            Figure("bare loop, CPU", "µs/event", bare_cpu),
        ],
        [
            Check("event-ingester / bare loop", worker.median / loop.median, ">=", 0.5),
            Check("event-ingester", worker.median, ">=", 40_000, "events/s"),
        ],
    )


def _worker(ground: Ground, topic: str, count: int, outputs: int) -> tuple[float, float]:
    """Events a second, and CPU seconds an event."""
    path = ground.config(inputs={"events_raw": topic})
    with Daemon(path, NAME) as daemon:
        daemon.ready()
        first: tuple[float, int, float] | None = None
        deadline = time.monotonic() + 120
        while True:
            worker = daemon.worker(NAME)
            now, done = time.monotonic(), worker["records_out"]
            if done and first is None:
                first = (now, done, cpu_seconds(worker["pid"]))
            if done >= outputs:
                break
            if now > deadline:
                raise RuntimeError(f"only {done:,} of {outputs:,} outputs after 120 s")
            time.sleep(0.025)
        used = cpu_seconds(worker["pid"])
        assert first is not None
        share = (done - first[1]) / outputs * count
    return share / (now - first[0]), (used - first[2]) / share

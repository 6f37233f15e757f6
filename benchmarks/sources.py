"""``sources``: what the runtime of a source adds to a bare loop, and what an empty poll costs."""

from __future__ import annotations

from pathlib import Path

from benchmarks.ground import Ground, run_bare
from benchmarks.report import Check, Figure, Result

NAME = "sources"

_ROWS = 5000
_FAST_MS, _SLOW_MS = 20, 1000
_METHOD = (
    "`workers.source.SourceRuntime` in a process of its own, with a source whose pages of {rows:,} events "
    "(0.95 kB, two headers) lie in memory, so that only the runtime is measured: {count:,} events onto "
    "events.raw, 4 partitions, LZ4, each page with its position in one transaction; rate and processor time "
    "from the first commit to the last. The bare loop is one process with the same client settings that "
    "sends the same messages in transactions of the same size. In turns. Then a source that has nothing, "
    "polled each {fast} ms for {seconds} s, and each {slow} ms for as long: the processor time between the "
    "two, divided by the polls between the two, is that of one empty poll; what the source itself spends "
    "on its query comes on top."
)


def run(ground: Ground, folder: Path, *, quick: bool, repetitions: int) -> Result:
    """Measure."""
    del folder
    count, seconds = (50_000, 3) if quick else (200_000, 5)
    rates: list[float] = []
    bare_rates: list[float] = []
    cpu: list[float] = []
    bare_cpu: list[float] = []
    polls, loops = [], []
    for _ in range(repetitions):
        for mode, of_mode, cpu_of_mode in (("runtime", rates, cpu), ("bare", bare_rates, bare_cpu)):
            commits = run_bare("paged_source", _config(ground), mode, count, _ROWS)["commits"]
            (began, first, used), (ended, last, used_at_end) = commits[0], commits[-1]
            of_mode.append((last - first) / (ended - began))
            cpu_of_mode.append((used_at_end - used) / (last - first) * 1e6)
        fast = run_bare("paged_source", _config(ground), "idle", seconds, _FAST_MS)
        slow = run_bare("paged_source", _config(ground), "idle", seconds, _SLOW_MS)
        still = slow["cpu"] / slow["seconds"]
        polls.append((fast["cpu"] - still * fast["seconds"]) / (fast["polls"] - slow["polls"]) * 1e3)
        loops.append(still * 100)
    runtime = Figure("runtime of a source", "events/s", rates)
    loop = Figure("bare loop", "events/s", bare_rates)
    poll = Figure("one empty poll, CPU", "ms", polls)
    return Result(
        NAME,
        "The runtime of a source",
        _METHOD.format(rows=_ROWS, count=count, fast=_FAST_MS, slow=_SLOW_MS, seconds=seconds),
        [
            runtime,
            loop,
            Figure("runtime of a source, CPU", "µs/event", cpu),
            Figure("bare loop, CPU", "µs/event", bare_cpu),
            poll,
            Figure("a source with nothing to do, polled each second, CPU", "% of a core", loops),
        ],
        [
            Check("runtime / bare loop", runtime.median / loop.median, ">=", 0.8),
            Check("one empty poll without the source's own work", poll.median, "<=", 1.0, "ms"),
        ],
    )


def _config(ground: Ground) -> Path:
    # Nobody takes these events: their lag is no reason to wait.
    return ground.config(more="[sources]\npause_lag = 1000000000\nresume_lag = 1000000000\n")

"""``idle``: what the whole daemon costs when there is nothing to do."""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks.ground import Daemon, Ground, bare
from benchmarks.machine import cpu_seconds, proportional_kb
from benchmarks.report import Check, Figure, Result

NAME = "idle"

_SETTLE = 5.0
_METHOD = (
    "The whole daemon, parent and all seven workers, default settings, on its Kafka without a message. "
    "{settle:g} s after all are ready: processor time of all eight processes (/proc/PID/stat) over "
    "{seconds:g} s, as a share of one core, and their proportional set sizes (smaps_rollup) at the end of "
    "it, together (the benchmark's own process maps some of the same libraries, which takes at most a "
    "ninth off). Then, in the same way over 10 s, one bare Python process with one consumer and one "
    "transactional producer, as idle."
)


def run(ground: Ground, folder: Path, *, quick: bool, repetitions: int) -> Result:
    """Measure."""
    del folder
    seconds = 5.0 if quick else 20.0
    with Daemon(ground.config()) as daemon:
        daemon.ready()
        pids = [daemon.process.pid, *(worker["pid"] for worker in daemon.workers())]
        cpu, memory = _watch(pids, seconds, repetitions)
    with bare("bare_idle", ground.config()) as process:
        assert process.stdout is not None
        process.stdout.readline()
        bare_cpu, bare_memory = _watch([process.pid], min(seconds, 10.0), repetitions)
        process.kill()
    return Result(
        NAME,
        "Idle",
        _METHOD.format(settle=_SETTLE, seconds=seconds),
        [
            Figure("daemon, memory (PSS)", "MiB", memory),
            Figure("daemon, processor", "% of a core", cpu),
            Figure("one bare client process, memory (PSS)", "MiB", bare_memory),
            Figure("one bare client process, processor", "% of a core", bare_cpu),
        ],
        [
            Check("memory of all processes", max(memory), "<=", 300, "MiB"),
            Check("processor time of all processes", sorted(cpu)[len(cpu) // 2], "<=", 2.0, "% of a core"),
        ],
    )


def _watch(pids: list[int], seconds: float, repetitions: int) -> tuple[list[float], list[float]]:
    """Shares of a core in percent, and MiB, of idle processes together."""
    time.sleep(_SETTLE)
    cpu, memory = [], []
    for _ in range(repetitions):
        began, used = time.monotonic(), sum(map(cpu_seconds, pids))
        time.sleep(seconds)
        cpu.append((sum(map(cpu_seconds, pids)) - used) / (time.monotonic() - began) * 100)
        memory.append(sum(map(proportional_kb, pids)) / 1024)
    return cpu, memory

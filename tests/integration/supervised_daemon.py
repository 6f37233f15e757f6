"""A daemon whose workers do what a test orders: run as a script by ``supervised.py``, never imported."""

from __future__ import annotations

import ctypes
import faulthandler
import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from pipelined.config import tree
from pipelined.config.leaves import built, leaves
from pipelined.errors import ConfigError, PipelinedError
from pipelined.stats.slots import Child, SharedStats
from pipelined.supervisor.loop import Supervisor, WorkerSpec
from pipelined.supervisor.preload import preload


class Panic(BaseException):
    """As a Rust extension raises one."""


ORDER = json.loads(sys.argv[1])
FOLDER = Path(ORDER["folder"])
EVENTS = os.open(FOLDER / "events", os.O_WRONLY | os.O_CREAT | os.O_APPEND)


EATEN: list[bytes] = []


def tell(worker: str, index: int, what: str, **more: object) -> None:
    line = {"t": time.monotonic(), "worker": worker, "index": index, "what": what, "pid": os.getpid()}
    os.write(EVENTS, json.dumps(line | more).encode() + b"\n")


def entry(
    config: tree.Config, worker: str, index: int, stats: SharedStats, should_stop: Callable[[], bool]
) -> int:
    tell(worker, index, "start", format=config.logs.format)
    child = stats.slot(worker, index).child
    does = ORDER["workers"][worker]
    if worker == "download" and (FOLDER / "now-wrong").exists():
        does = {"raises": "config"}
    if "at_format" in does and config.logs.format != does["at_format"]:
        does = {}
    if "once" in does and child.generation > 1:
        does = {}
    act(does, child)
    child.ready()
    child.beat()
    tell(worker, index, "ready")
    lives_until = time.monotonic() + does.get("lives", 1e9)
    level = logging.getLogger().level
    while not should_stop() and time.monotonic() < lives_until:
        child.beat()
        if level != (level := logging.getLogger().level):
            tell(worker, index, "level", now=logging.getLevelName(level))
        if "ignores_abort" in does:
            faulthandler.disable()
            signal.signal(signal.SIGABRT, signal.SIG_IGN)
        if "hangs" in does:
            hang_in_this_function()
        time.sleep(0.005)
    if should_stop():
        tell(worker, index, "stop")
        time.sleep(does.get("drains", 0))
        if stats.slot(worker, index).parent.leaving:
            tell(worker, index, "leave")
    tell(worker, index, "end")
    return int(does.get("exit", 0))


def act(does: dict[str, object], child: Child) -> None:
    """What goes before being ready."""
    if "eats_mb" in does:
        EATEN.append(b"x" * (1_000_000 * int(str(does["eats_mb"]))))
    if "waits" in does:
        time.sleep(float(str(does["waits"])))
    if "waits_with_signs" in does:
        until = time.monotonic() + float(str(does["waits_with_signs"]))
        while time.monotonic() < until:
            child.beat()
            time.sleep(0.02)
    if "dies" in does:
        os._exit(int(str(does["dies"])))
    if "survives" in does:
        ctypes.CDLL(None).prctl(1, 0, 0, 0, 0)  # as a change of credentials does: no parent-death signal
    if "forks" in does and os.fork() == 0:
        while True:
            time.sleep(1)
    match does.get("raises"):
        case "config":
            raise ConfigError("kafka.bootstrap is wrong")
        case "error":
            raise RuntimeError("nobody expected this")
        case "panic":
            raise Panic("a panic")
        case _:
            pass


def wait_in_another_thread() -> None:
    time.sleep(600)


def hang_in_this_function() -> None:
    threading.Thread(target=wait_in_another_thread, daemon=True).start()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        time.sleep(1)


class Reread:
    """The configuration is what the folder's file ``values`` says: keys to values, as JSON."""

    def check(self, present: tree.Config, wanted: tree.Config | None) -> tree.Config:
        del present
        if (FOLDER / "slow").exists():
            time.sleep(600)
        if (FOLDER / "broken").exists():
            raise RuntimeError("a bug of the check")
        if (FOLDER / "wrong").exists():
            raise ConfigError(["one thing is wrong", "and another"])
        return configured() if wanted is None else wanted

    def accepted(self, config: tree.Config) -> None:
        tell("daemon", 0, "accepted", format=config.logs.format)


def configured() -> tree.Config:
    values = {"state_dir": ORDER["state_dir"], "runtime_dir": ORDER["runtime_dir"]}
    values |= {f"supervisor.{key}": value for key, value in ORDER["supervisor"].items()}
    for name, does in ORDER["workers"].items():
        if name in tree.WORKER_TYPES:
            section = f"workers.{name.replace('-', '_')}."
            values[section + "processes"] = does.get("processes", 1)
            values |= {section + key: does[key] for key in SETTINGS if key in does}
    if (FOLDER / "values").exists():
        values |= json.loads((FOLDER / "values").read_text())
    return built(values)


#: What a worker may be ordered to have as its own settings.
SETTINGS = ("start_s", "hang_s", "drain_s", "memory_mb")


def ready() -> None:
    tell("daemon", 0, "ready")
    if "blocks" in ORDER:
        block_the_loop()


def block_the_loop() -> None:
    time.sleep(600)


def main() -> int:
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stderr)
    preload(ORDER.get("modules", ()))
    config = configured()
    leaves(config)  # as loading one does: what it takes is taken before the loop turns
    specs = []
    for name, does in ORDER["workers"].items():
        settings = tree.Worker(**{key: does[key] for key in SETTINGS if key in does})
        specs.append(WorkerSpec(name, does.get("processes", 1), settings))
    stats = SharedStats({spec.type: spec.processes for spec in specs}, config.supervisor.max_processes)
    supervisor = Supervisor(
        config,
        specs,
        entry,
        stats=stats,
        on_ready=ready,
        revision=Reread(),
    )
    try:
        return supervisor.run()
    except PipelinedError as error:
        print(f"error: {error}", file=sys.stderr)
        return int(error.exit_code)


if __name__ == "__main__":
    sys.exit(main())

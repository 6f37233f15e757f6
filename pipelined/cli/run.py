"""``pipelined run``: the parent and its workers.

Nothing heavy may be imported here before ``preload``: the parent must stay without threads to fork safely.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import click

from pipelined.cli.revision import Sources, log_as_parent
from pipelined.cli.settings import Settings
from pipelined.config import WORKER_TYPES, Config
from pipelined.crashpoints import armed
from pipelined.errors import ConfigError, ExitCode, UnavailableError, UsageError
from pipelined.stats.slots import SharedStats
from pipelined.supervisor.child import die_with_parent
from pipelined.supervisor.listener import Listener
from pipelined.supervisor.loop import Supervisor, WorkerSpec
from pipelined.supervisor.preload import preload
from pipelined.supervisor.signals import harmless
from pipelined.supervisor.store import COUNTERS, Store

__all__ = ["run"]

_logger = logging.getLogger("pipelined.supervisor")

_HEAVY = "pipelined.workers.catalogue"
_PREFLIGHT_S = 3.0
#: However little the brokers answer, the workers are started after so long: they wait better.
_PREFLIGHT_LIMIT_S = 20.0


@click.command()
@click.option(
    "--worker",
    "workers",
    type=click.Choice(WORKER_TYPES),
    multiple=True,
    metavar="TYPE",
    help="Run this worker type only; may be given several times. Without it: all of them.",
)
@click.option(
    "--dev", is_flag=True, help="Run on a local Kafka and file server of its own; needs no settings."
)
@click.option(
    "--directory",
    type=click.Path(path_type=Path, file_okay=False),
    default="pipelined-dev",
    show_default=True,
    help="With --dev: the folder for everything that it makes.",
)
@click.pass_obj
def run(settings: Settings, workers: tuple[str, ...], dev: bool, directory: Path) -> int:
    """Run the daemon in the foreground until INT or TERM.

    The first signal finishes what is in hand and commits it, a second one gives it two seconds, a third
    none. Exit code 0: stopped and drained; 73: another daemon has the state folder; 78: the configuration
    or the topics do not fit; 124: a drain took too long.

    \b
    Example:
      pipelined run --dev
      pipelined --config /etc/pipelined.toml run --worker download --worker upload
    """  # noqa: D301 - click takes the character \\b for a paragraph to keep
    with contextlib.ExitStack() as stack:
        if dev:
            settings = stack.enter_context(_local_stack(settings, directory))
        return _serve(settings, workers or WORKER_TYPES)


@contextlib.contextmanager
def _local_stack(settings: Settings, directory: Path) -> Iterator[Settings]:
    """The local parts, for as long as the daemon runs, and the settings that lead to them."""
    from pipelined.local.stack import Stack

    with Stack(directory) as parts:
        click.echo(
            f"local Kafka on {parts.bootstrap}, files from {parts.files_url}; "
            f"`pipelinectl --config {parts.config} status` tells more; Ctrl-C ends it",
            err=True,
        )
        yield Settings(parts.config, settings.overrides)


def _serve(settings: Settings, workers: tuple[str, ...]) -> int:
    harmless()
    store = Store()
    config = settings()
    log_as_parent(config)
    armed()  # raises for a crash point that does not exist
    preload([_HEAVY])
    from pipelined.workers.catalogue import run_worker

    specs = [
        WorkerSpec(worker, config.worker(worker).processes, config.worker(worker))
        for worker in WORKER_TYPES
        if worker in workers
    ]
    if not any(spec.processes for spec in specs):
        msg = "nothing to run: every worker type asked for has processes = 0"
        raise UsageError(msg)
    _preflight(config, [spec.type for spec in specs if spec.processes])
    stats = _stats(config, specs, store)
    listener = Listener(store, config, runs="endpoint" in workers)

    def entry(
        config: Config, worker: str, index: int, stats: SharedStats, should_stop: Callable[[], bool]
    ) -> int:
        code = run_worker(config, worker, index, stats, should_stop, listener.claim(config, worker))
        if stats.slot(worker, index).parent.leaving:
            listener.shut()
        return code

    revision = Sources(settings.file, settings.overrides, listener)
    return Supervisor(config, specs, entry, stats=stats, revision=revision, store=store).run()


def _stats(config: Config, specs: Sequence[WorkerSpec], store: Store) -> SharedStats:
    """The counters: those of the daemon before, where systemd kept them and they are the same."""
    before = store.take(COUNTERS)
    stats = SharedStats(
        {spec.type: spec.processes for spec in specs},
        config.supervisor.max_processes,
        before=before,
        keep=functools.partial(store.keep, COUNTERS),
    )
    if stats.unfit:
        _logger.info("the counters begin at zero, those of the daemon before cannot go on: %s", stats.unfit)
    elif before is not None:
        _logger.info("the counters of the daemon before go on")
    return stats


def _preflight(config: Config, workers: Sequence[str]) -> None:
    """Refuse topics and timeouts that do not fit, in a process of its own: this one never speaks to Kafka.

    Brokers that do not answer are no reason to refuse: the workers wait for them.
    """
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        code = int(ExitCode.SOFTWARE)
        try:
            die_with_parent(parent)
            code = _cluster(config, workers)
        finally:
            os._exit(code)
    if _exit_code(child) == ExitCode.CONFIG:
        msg = "not started: the cluster is not as configured (see above)"
        raise ConfigError(msg)


def _exit_code(child: int) -> int | None:
    """How the child ended, None where it had to be killed: what it asks may never be answered."""
    deadline = time.monotonic() + _PREFLIGHT_LIMIT_S
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            _logger.warning(
                "the brokers did not answer within %g s; starting all the same, the workers wait",
                _PREFLIGHT_LIMIT_S,
            )
            return None
        time.sleep(0.005)
    return os.waitstatus_to_exitcode(ended[1])


def _cluster(config: Config, workers: Sequence[str]) -> int:
    from pipelined.kafka import limits, topics
    from pipelined.kafka.leaving import leave_surplus

    try:
        topics.check(config, timeout=_PREFLIGHT_S)
        limits.check(config, timeout=_PREFLIGHT_S)
    except ConfigError as error:
        for problem in error.problems:
            click.echo(f"error: {problem}", err=True)
        return int(ExitCode.CONFIG)
    except UnavailableError as error:
        _logger.warning("%s; starting all the same, the workers wait", error)
        return int(ExitCode.OK)
    try:
        leave_surplus(config, workers, timeout=_PREFLIGHT_S)
    except UnavailableError as error:
        _logger.warning("whether more processes ran here before is not known: %s", error)
    return int(ExitCode.OK)

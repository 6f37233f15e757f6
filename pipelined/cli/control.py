"""``pipelinectl stop`` and ``start``: of the daemon, and of the workers of one type."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from pipelined.cli import options
from pipelined.cli.commandline import CommandLine
from pipelined.cli.completion import worker_types
from pipelined.cli.headline import name
from pipelined.cli.known import known_type
from pipelined.cli.reach import request
from pipelined.cli.service import start_service
from pipelined.cli.settings import Settings
from pipelined.cli.units import installed_for
from pipelined.config import Config
from pipelined.config.tree import WORKER_TYPES
from pipelined.errors import AlreadyRunningError, ExitCode, PipelinedError, UsageError
from pipelined.kafka.settings import host_name
from pipelined.logs.rotation import log_file
from pipelined.supervisor.pidfile import holder

__all__ = ["running_timeout", "start", "start_daemon", "stop", "stop_daemon"]

_POLL_S = 0.05
_TAIL_LINES = 20


@click.command()
@click.argument("worker_type", metavar="[TYPE]", required=False, shell_complete=worker_types)
@click.option(
    "--leave",
    is_flag=True,
    help="This host goes out of service: other hosts take its partitions over at once.",
)
@options.timeout
@click.pass_obj
def stop(settings: Settings, worker_type: str | None, leave: bool, timeout: float | None) -> int:
    """Stop the daemon, or the workers of one TYPE: they finish what is in hand first.

    A stopped TYPE stays stopped until `start TYPE`, and other hosts take its partitions over at once. Those
    of a stopped daemon wait for its return until the session times out, unless it is told to leave. Works
    also while the configuration file is broken. Exit code 0 once it is done, also where nothing ran; 124
    where it takes longer than the timeout.

    \b
    Example:
      pipelinectl stop
      pipelinectl stop download
      pipelinectl stop --leave --timeout 120
    """  # noqa: D301 - click takes the character \\b for a paragraph to keep
    config = settings.whereabouts()
    if worker_type is not None:
        seconds = config.worker(known_type(worker_type)).drain_s + 10 if timeout is None else timeout
        request(config, {"cmd": "stop", "type": worker_type})
        return _wait_for_type(config, worker_type, "stop", seconds)
    return stop_daemon(config, timeout, leave=leave)


def stop_daemon(config: Config, timeout: float | None, *, leave: bool = False) -> int:
    """Have the daemon drain and end, and wait for it; returns the exit code of `pipelinectl stop`.

    A ``timeout`` of None is what the configuration allows.
    """
    if holder(config.state_dir) is None:
        hint = f"; `pipelinectl members --remove {host_name(config)}` gives away what it had"
        click.echo("it is not running" + (hint if leave else ""))
        return int(ExitCode.OK)
    request(config, {"cmd": "stop", "leave": leave})
    if _until(lambda: holder(config.state_dir) is None, _drained_s(config) if timeout is None else timeout):
        click.echo("stopped")
        return int(ExitCode.OK)
    if timeout == 0:
        click.echo("stopping")
        return int(ExitCode.OK)
    click.echo("it still drains; see `pipelinectl status`", err=True)
    return int(ExitCode.DRAIN_TIMEOUT)


@click.command()
@click.argument("worker_type", metavar="[TYPE]", required=False, shell_complete=worker_types)
@options.timeout
@click.pass_obj
def start(settings: Settings, worker_type: str | None, timeout: float | None) -> int:
    """Start the daemon, or the workers of one TYPE, also after it was given up.

    Where a service is installed for this configuration (`pipelinectl service install`), systemd starts it;
    else it runs in the background, its log in `pipelined.log` of the state folder.

    Exit code 0 once it is running; 1 where some worker does not come up; 73 where the daemon runs
    already; else the code with which it ended, its last log lines shown.

    \b
    Example:
      pipelinectl start
      pipelinectl start event-writer
    """  # noqa: D301 - click takes the character \\b for a paragraph to keep
    if worker_type is not None:
        config = settings.whereabouts()
        seconds = config.worker(known_type(worker_type)).start_s + 10 if timeout is None else timeout
        request(config, {"cmd": "start", "type": worker_type})
        return _wait_for_type(config, worker_type, "start", seconds)
    config = settings()
    timeout = running_timeout(config, timeout)
    if (installed := installed_for(settings.file)) is not None:
        if settings.overrides:
            raise UsageError(f"the service {installed} takes no --set: write it to the configuration")
        if (pid := holder(config.state_dir)) is not None:
            raise AlreadyRunningError(_running_already(pid))
        return start_service(installed, timeout)
    return start_daemon(config, CommandLine(settings.file, settings.overrides).command(), timeout)


def _running_already(pid: int) -> str:
    return f"the daemon runs already (pid {pid}); see `pipelinectl status`"


def running_timeout(config: Config, timeout: float | None, *, drained: bool = False) -> float:
    """``timeout``, or how long the configuration allows a start to take; with a drain before it."""
    if timeout is not None:
        return timeout
    starts = sum(config.worker(each).start_s for each in WORKER_TYPES) + 30
    return starts + _drained_s(config) if drained else starts


def _drained_s(config: Config) -> float:
    return sum(config.worker(each).drain_s for each in WORKER_TYPES) + 10


def start_daemon(config: Config, command: Sequence[str], timeout: float, folder: Path | None = None) -> int:
    """Run ``command`` in a session of its own, its output in ``pipelined.log`` of the state folder.

    It is called in ``folder``; here where that is None, or is there no longer.

    Waits up to ``timeout`` seconds until its status says that it is running, and returns the exit code of
    `pipelinectl start`. Raises AlreadyRunningError where a daemon has this state folder.
    """
    if (pid := holder(config.state_dir)) is not None:
        raise AlreadyRunningError(_running_already(pid))
    log = log_file(config)
    log.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    with log.open("ab") as output:
        begin = output.tell()
        daemon = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            cwd=folder if folder is not None and folder.is_dir() else None,
        )
    document: dict[str, Any] = {"state": "not answering yet", "workers": []}

    def is_up() -> bool:
        nonlocal document
        if daemon.poll() is not None:
            return True
        if holder(config.state_dir) == daemon.pid:
            try:
                document = request(config, {"cmd": "status"})["status"]
            except PipelinedError:
                return False  # between its lock and its socket, or on its way out
        return document["state"] in {"running", "degraded"}

    in_time = _until(is_up, timeout)
    if daemon.returncode is not None:
        click.echo(f"the daemon ended with exit code {daemon.returncode}; {log} ends with:", err=True)
        click.echo(_tail(log, begin), err=True)
        # Killed by a signal: the code that a shell would give.
        return daemon.returncode if daemon.returncode > 0 else 128 - daemon.returncode
    click.echo(f"the daemon (pid {daemon.pid}) is {document['state']}; its log is {log}")
    if document["state"] == "running" or timeout == 0:
        return int(ExitCode.OK)
    for worker in document["workers"]:
        if worker["state"] != "RUNNING":
            click.echo(f"  {name(worker)} is {worker['state']}: {worker['reason']}", err=True)
    if not in_time:
        click.echo(f"not running within {timeout:g} s; {log} ends with:\n{_tail(log, begin)}", err=True)
    return int(ExitCode.FAILED)


def _until(condition: Callable[[], bool], timeout: float) -> bool:
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL_S)
    return True


def _wait_for_type(config: Config, worker_type: str, verb: str, timeout: float) -> int:
    """Wait until every process of the type is as ``verb`` wants it, or has failed; returns the exit code."""
    wanted = "STOPPED" if verb == "stop" else "RUNNING"
    ends = {wanted, "FATAL", "BACKOFF"}
    workers: list[dict[str, Any]] = []

    def is_settled() -> bool:
        nonlocal workers
        document = request(config, {"cmd": "status"})["status"]
        workers = [worker for worker in document["workers"] if worker["type"] == worker_type]
        return all(worker["state"] in ends for worker in workers)

    in_time = _until(is_settled, timeout)
    for worker in workers:
        reason = f": {worker['reason']}" if worker["reason"] else ""
        click.echo(f"{name(worker)} is {worker['state']}{reason}")
    if all(worker["state"] == wanted for worker in workers) or timeout == 0:
        return int(ExitCode.OK)
    return int(ExitCode.FAILED if in_time else ExitCode.DRAIN_TIMEOUT)


def _tail(log: Path, begin: int) -> str:
    with log.open("rb") as stream:
        # It may be a new one by now, since the one before was full.
        stream.seek(begin if os.fstat(stream.fileno()).st_size >= begin else 0)
        lines = stream.read().decode(errors="replace").splitlines()
    return "\n".join(lines[-_TAIL_LINES:]) or "(nothing)"

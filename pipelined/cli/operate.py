"""``pipelinectl reload``, ``restart``, ``scale``, ``pause``, ``resume``: changing a daemon while it runs."""

from __future__ import annotations

import time
from typing import Any

import click

from pipelined.cli import options
from pipelined.cli.completion import worker_types
from pipelined.cli.known import known_type
from pipelined.cli.reach import request
from pipelined.cli.restart import restart_daemon
from pipelined.cli.settings import Settings
from pipelined.config import Config
from pipelined.config.tree import WORKER_TYPES
from pipelined.errors import ConfigError, ExitCode

__all__ = ["pause", "reload", "restart", "resume", "scale"]

_POLL_S = 0.05
#: For the check of a configuration, which asks the brokers.
_CHECK_S = 40.0

_REFUSED = "refused: the daemon goes on with what it had"


@click.command()
@options.timeout
@click.pass_obj
def reload(settings: Settings, timeout: float | None) -> int:
    """Have the daemon read its configuration again, as SIGHUP does, and wait for the outcome.

    It reads what it was started with: the same file, environment and settings. The new configuration is
    checked in whole first; where anything is wrong, all of it is told and nothing changes. Then the workers
    that it concerns restart, one after the other, each ready before the next. Where one does not come up,
    everything is put back.

    Exit code 0: taken over, also where nothing has changed; 78: refused; 1: put back, or the daemon stopped
    meanwhile; 124: not over within the timeout.

    \b
    Example:
      pipelinectl config check && pipelinectl reload
    """  # noqa: D301 - click takes the character \\b for a paragraph to keep
    try:
        config = settings()
    except ConfigError as error:
        raise ConfigError([*error.problems, _REFUSED]) from error
    return _operate(config, {"cmd": "reload"}, timeout)


@click.command()
@click.argument("worker_type", metavar="[TYPE]", required=False, shell_complete=worker_types)
@options.timeout
@click.pass_obj
def restart(settings: Settings, worker_type: str | None, timeout: float | None) -> int:
    """Restart the daemon, or the workers of one TYPE: each drains, and is ready before the next.

    Without TYPE: the whole daemon, also where it did not run. Where a service is installed for this
    configuration, systemd restarts it; else it is stopped and started, each within the timeout, with the
    options that it had (its --set, its --worker), and with those of this command on top. What it will have
    for a configuration is checked first, and nothing is stopped for one that is wrong.

    Exit code 0: all of them run; 1: one did not come up, and with TYPE the others were left alone; 78: the
    configuration is wrong; 124: not over within the timeout, or still draining. Without TYPE, once it was
    stopped, that of `start`.

    \b
    Example:
      pipelinectl restart download
      pipelinectl restart
    """  # noqa: D301 - click takes the character \\b for a paragraph to keep
    if worker_type is not None:
        wanted = {"cmd": "restart", "type": known_type(worker_type)}
        return _operate(settings.whereabouts(), wanted, timeout)
    return restart_daemon(settings, timeout)


@click.command()
@click.argument("worker_type", metavar="TYPE", shell_complete=worker_types)
@click.argument("processes", type=click.IntRange(min=0), metavar="N")
@options.timeout
@click.pass_obj
def scale(settings: Settings, worker_type: str, processes: int, timeout: float | None) -> int:
    """Run N processes of TYPE, until the next reload or start: the configuration then decides again.

    Those that are too many drain and leave their group, so that the others have their partitions at once.
    There may be supervisor.max_processes of a type.

    Exit codes as of `reload`.

    \b
    Example:
      pipelinectl scale download 4
    """  # noqa: D301 - click takes the character \\b for a paragraph to keep
    wanted = {"cmd": "scale", "type": known_type(worker_type), "processes": processes}
    return _operate(settings.whereabouts(), wanted, timeout)


@click.command()
@click.argument("worker_type", metavar="TYPE", shell_complete=worker_types)
@click.pass_obj
def pause(settings: Settings, worker_type: str) -> None:
    """Have the workers of TYPE take nothing more: what they have in hand they finish, and they stay ready.

    They keep their partitions, so that no other host does the work. It lasts until `resume TYPE`, or until
    the daemon ends.

    \b
    Example:
      pipelinectl pause upload
    """  # noqa: D301 - click takes the character \\b for a paragraph to keep
    request(settings.whereabouts(), {"cmd": "pause", "type": known_type(worker_type)})
    click.echo(f"{worker_type} is paused; `pipelinectl resume {worker_type}` ends that")


@click.command()
@click.argument("worker_type", metavar="TYPE", shell_complete=worker_types)
@click.pass_obj
def resume(settings: Settings, worker_type: str) -> None:
    """Have the workers of TYPE go on after a `pause`.

    \b
    Example:
      pipelinectl resume upload
    """  # noqa: D301 - click takes the character \\b for a paragraph to keep
    request(settings.whereabouts(), {"cmd": "resume", "type": known_type(worker_type)})
    click.echo(f"{worker_type} goes on")


def _operate(config: Config, wanted: dict[str, Any], timeout: float | None) -> int:
    """Ask, wait until it is over, tell the outcome of each worker, and return the exit code."""
    operation = request(config, wanted)["operation"]
    deadline = time.monotonic() + (_patience(config) if timeout is None else timeout)
    while operation["state"] in {"checking", "applying"}:
        if time.monotonic() >= deadline:
            click.echo(f"{operation['what']} is under way; see `pipelinectl status`")
            return int(ExitCode.OK if timeout == 0 else ExitCode.DRAIN_TIMEOUT)
        time.sleep(_POLL_S)
        operation = request(config, {"cmd": "operation", "number": operation["number"]})["operation"]
    for change in operation["changes"]:
        click.echo(change)
    for name, outcome in operation["workers"].items():
        click.echo(f"{name} is {outcome}" if outcome != "left as it was" else f"{name} was {outcome}")
    if operation["state"] == "done":
        if not operation["workers"]:
            click.echo("taken over; nobody had to restart" if operation["changes"] else "nothing has changed")
        return int(ExitCode.OK)
    if operation["state"] == "refused":
        raise ConfigError([*operation["problems"], _REFUSED])
    for problem in operation["problems"]:
        click.echo(f"error: {problem}", err=True)
    click.echo(f"error: the {operation['what'].partition(',')[0]} {_end_in_words(operation)}", err=True)
    return int(ExitCode.FAILED)


def _end_in_words(operation: dict[str, Any]) -> str:
    if operation["state"] == "abandoned":
        return "was abandoned; the daemon stops"
    if any(outcome.startswith("put back") for outcome in operation["workers"].values()):
        return "was put back: the daemon goes on with what it had"
    return "failed; there is nothing to put back, and the rest goes on"


def _patience(config: Config) -> float:
    workers = [config.worker(worker_type) for worker_type in WORKER_TYPES]
    return _CHECK_S + sum((each.drain_s + each.start_s + 10) * max(1, each.processes) for each in workers)

"""Restarting the whole daemon: by systemd, where that runs it, else as it was called before."""

from __future__ import annotations

import click

from pipelined.cli.commandline import CommandLine, of_process
from pipelined.cli.control import running_timeout, start_daemon, stop_daemon
from pipelined.cli.revision import Sources
from pipelined.cli.service import main_pid, start_service
from pipelined.cli.settings import Settings
from pipelined.cli.units import installed_for
from pipelined.config import Config
from pipelined.errors import ExitCode, UsageError
from pipelined.logs.masking import mask
from pipelined.supervisor.pidfile import holder

__all__ = ["restart_daemon"]


def restart_daemon(settings: Settings, timeout: float | None) -> int:
    """Restart it, or start it where none runs, and wait; returns the exit code of `pipelinectl restart`.

    The configuration that it will have is checked before: nothing is stopped for one that is wrong.
    """
    config = settings()
    pid = holder(config.state_dir)
    if (installed := installed_for(settings.file)) is not None:
        return _restart_service(installed, settings, pid, timeout)
    if pid is not None and timeout == 0:
        raise UsageError("a daemon that no service runs is started once it has drained: wait for that")
    line = _as_before(CommandLine(settings.file, settings.overrides), pid)
    config = _checked(Settings(line.file, line.overrides))
    stopped = stop_daemon(config, timeout)
    if stopped != ExitCode.OK:
        return stopped
    return start_daemon(config, line.command(), running_timeout(config, timeout), line.folder)


def _restart_service(installed: str, settings: Settings, pid: int | None, timeout: float | None) -> int:
    """By one job of systemd, which keeps what it stores for the service."""
    if settings.overrides:
        raise UsageError(f"the service {installed} takes no --set: write it to the configuration")
    config = settings()
    if pid is not None:
        # Only then: credentials of the service can be read while it runs, and a start checks all the same.
        _checked(settings)
        if pid not in {0, main_pid(installed)}:
            click.echo(
                f"the daemon (pid {pid}) is not that of the service {installed}: it is stopped", err=True
            )
            stopped = stop_daemon(config, timeout)
            if stopped != ExitCode.OK:
                return stopped
    return start_service(installed, running_timeout(config, timeout, drained=True), "restart")


def _checked(settings: Settings) -> Config:
    config = settings()
    Sources(settings.file, settings.overrides).check(config, None)
    return config


def _as_before(given: CommandLine, pid: int | None) -> CommandLine:
    """How to call the next daemon: as the one that runs was called, with what this command gives on top."""
    if not pid:
        return given
    running = of_process(pid)
    if running is None:
        click.echo(
            f"warning: how the daemon (pid {pid}) was called cannot be told; it is started with the options "
            f"of this command alone",
            err=True,
        )
        return given
    given = CommandLine(given.file and given.file.absolute(), given.overrides)
    wanted = running.with_changes(given.file, given.overrides)
    if (wanted.overrides, wanted.run) != (given.overrides, given.run):
        click.echo(f"it is started with what it had: {mask(str(wanted))}", err=True)
    if None not in (running.file, given.file) and running.file != given.file:
        click.echo(f"it had another file, {running.file}; it is started with {given.file}", err=True)
    return wanted

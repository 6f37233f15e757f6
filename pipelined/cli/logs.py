"""``pipelinectl logs``: what the daemon and its workers logged, wherever that went."""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

import click

from pipelined.cli import options
from pipelined.cli.completion import worker_types
from pipelined.cli.known import known_type
from pipelined.cli.settings import Settings
from pipelined.cli.status import coloured
from pipelined.cli.units import installed_for
from pipelined.config.tree import WORKER_TYPES, Config
from pipelined.errors import ExitCode, UnavailableError
from pipelined.logs.logfile import LogFile
from pipelined.logs.reading import Entry, Wanted, from_journal, shown
from pipelined.logs.rotation import log_file
from pipelined.supervisor.levels import LEVELS, SUPERVISOR

__all__ = ["logs"]


@click.command()
@click.argument("worker_type", metavar="[TYPE]", required=False, shell_complete=worker_types)
@click.option(
    "--level", type=click.Choice(LEVELS, case_sensitive=False), help="Only what is as severe, or more so."
)
@click.option("--trace", metavar="ID", default="", help="Only what belongs to this event.")
@options.since
@options.lines
@options.follow
@options.as_json_lines
@click.pass_obj
def logs(
    settings: Settings,
    worker_type: str | None,
    level: str | None,
    trace: str,
    since: float | None,
    lines: int | None,
    follow: bool,
    as_json: bool,
) -> int:
    """Show the log: of everybody, of the workers of TYPE, or of the supervisor (TYPE: supervisor).

    TYPE shows also what the supervisor says about these workers. It is read from the journal where a service
    is installed for this configuration, else from `pipelined.log` in the state folder and those before it
    (`.1`, `.2`, …); which of them is said on the standard error stream. Times are UTC.

    Exit code 0, also where nothing is found and after Ctrl-C with --follow; 69 where there is no log.

    \b
    Example:
      pipelinectl logs download --level warning --since 2h
      pipelinectl logs --trace 0b9c7f5e-3f0e-4a52-9b4e-1f2d3c4b5a69
    """  # noqa: D301 - click takes the character \\b for a paragraph to keep
    if worker_type is not None:
        known_type(worker_type, (SUPERVISOR, *WORKER_TYPES))
    config = settings.whereabouts()
    severe = logging.getLevelNamesMapping()[level.upper()] if level else 0
    wanted = Wanted(worker_type or "", severe, trace, since or 0.0)
    count = options.amount(lines, since)
    service = installed_for(settings.file)
    if service is not None and shutil.which("journalctl") is not None:
        click.echo(f"from the journal of {service}", err=True)
        entries = _of_journal(_journalctl(service, wanted, count, config, follow=follow))
    else:
        entries = _of_file(log_file(config), wanted, count, follow=follow)
    with options.ended_by_ctrl_c(follows=follow):
        _show(entries, as_json=as_json)
    return int(ExitCode.OK)


def _show(entries: Iterable[Entry], *, as_json: bool) -> None:
    colour = coloured()
    for entry in entries:
        if as_json:
            text = json.dumps(
                {name: each for name, each in entry.items() if name != "whole"}, ensure_ascii=False
            )
        else:
            text = shown(entry, colour=colour, whole="whole" in entry)
        click.echo(text, color=colour)


def _of_file(path: Path, wanted: Wanted, count: int | None, *, follow: bool) -> Iterator[Entry]:
    with contextlib.closing(LogFile(path)) as file:
        try:
            found = file.last(wanted, count)
        except OSError as error:
            raise UnavailableError(
                f"no log in {path} ({error.strerror}): only `pipelinectl start` writes there; a daemon in "
                "the foreground logs to its terminal, and a service to the journal"
            ) from error
        click.echo(f"from {path}", err=True)
        yield from found
        if follow:
            yield from file.follow(wanted)


def _journalctl(
    service: str, wanted: Wanted, count: int | None, config: Config, *, follow: bool
) -> list[str]:
    """The command that finds what is wanted, by fields."""
    command = ["journalctl", f"--unit={service}", "--output=json", "--all", "--no-pager", "--quiet"]
    if count is not None:
        command.append(f"--lines={count}")
    elif follow:
        command.append("--no-tail")
    if follow:
        command.append("--follow")
    if wanted.since:
        command.append(f"--since=@{wanted.since:.6f}")
    if wanted.level:
        command.append(f"--priority={logging.getLevelName(wanted.level).lower().replace('error', 'err')}")
    trace = [f"TRACE_ID={wanted.trace}"] if wanted.trace else []
    if not wanted.worker:
        return command + trace
    command += [f"WORKER={wanted.worker}", *trace]
    for index in range(config.supervisor.max_processes):
        command += ["+", f"CHILD={wanted.worker}/{index}", *trace]
    return command


def _of_journal(command: list[str]) -> Iterator[Entry]:
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as reading:
        assert reading.stdout is not None
        try:
            for line in reading.stdout:
                yield {**from_journal(json.loads(line)), "whole": True}
        finally:
            reading.terminate()

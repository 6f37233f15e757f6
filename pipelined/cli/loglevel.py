"""``pipelinectl log-level``: how much a running daemon logs."""

from __future__ import annotations

import click

from pipelined.cli.completion import worker_types
from pipelined.cli.reach import request
from pipelined.cli.settings import Settings
from pipelined.supervisor.levels import AS_CONFIGURED, LEVELS

__all__ = ["log_level"]


@click.command("log-level")
@click.argument("level", metavar="LEVEL", type=click.Choice([*LEVELS, AS_CONFIGURED], case_sensitive=False))
@click.argument("worker_type", metavar="[TYPE]", required=False, shell_complete=worker_types)
@click.pass_obj
def log_level(settings: Settings, level: str, worker_type: str | None) -> None:
    """Log from LEVEL on: debug, info, warning, error, or default, as the configuration says.

    It concerns the workers of TYPE, the supervisor itself (TYPE: supervisor), or all of them; nobody
    restarts. A worker follows within a second, one that starts later at once. It lasts until `log-level
    default`, or until the daemon ends.

    \b
    Example:
      pipelinectl log-level debug download
    """  # noqa: D301 - click takes the character \\b for a paragraph to keep
    wanted = {"cmd": "log-level", "level": level} | ({"type": worker_type} if worker_type else {})
    reply = request(settings.whereabouts(), wanted)
    for name, present in reply["levels"].items():
        if worker_type in {None, name}:
            click.echo(f"{name} logs from {present} on")
    if level != AS_CONFIGURED:
        click.echo("until `pipelinectl log-level default`, or until the daemon ends", err=True)

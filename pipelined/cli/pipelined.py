"""``pipelined``: the daemon, in the foreground."""

from __future__ import annotations

import click

from pipelined import __version__
from pipelined.cli.demo import demo
from pipelined.cli.errors import main_wrapper
from pipelined.cli.groups import Commands
from pipelined.cli.run import run
from pipelined.cli.settings import config_options

__all__ = ["main", "pipelined"]


@click.group(cls=Commands)
@click.version_option(__version__, prog_name="pipelined")
@config_options
def pipelined() -> None:
    """Claim events in, files and tables out, every one accounted for."""


pipelined.add_command(demo)
pipelined.add_command(run)

main = main_wrapper(pipelined)

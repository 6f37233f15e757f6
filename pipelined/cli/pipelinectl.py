"""``pipelinectl``: the operator's command."""

from __future__ import annotations

import click

from pipelined import __version__
from pipelined.cli.backfill import backfill
from pipelined.cli.completion import completion
from pipelined.cli.config import config
from pipelined.cli.control import start, stop
from pipelined.cli.doctor import doctor
from pipelined.cli.errors import main_wrapper
from pipelined.cli.events import events
from pipelined.cli.groups import Commands
from pipelined.cli.ledger import ledger
from pipelined.cli.load import load
from pipelined.cli.loglevel import log_level
from pipelined.cli.logs import logs
from pipelined.cli.members import members
from pipelined.cli.operate import pause, reload, restart, resume, scale
from pipelined.cli.service import service
from pipelined.cli.settings import config_options
from pipelined.cli.sources import sources
from pipelined.cli.status import status
from pipelined.cli.tables import tables
from pipelined.cli.topics import topics
from pipelined.cli.version import version

__all__ = ["main", "pipelinectl"]


#: What there is, by what an operator is about to do.
SECTIONS = {
    "Look": (status, logs, events, members, ledger, doctor, version),
    "Run": (start, stop, restart, reload, scale, pause, resume, log_level),
    "Set up": (config, topics, service, completion),
    "Data": (load, backfill, sources, tables),
}


@click.group(cls=Commands, sections=SECTIONS)
@click.version_option(__version__, prog_name="pipelinectl")
@config_options
def pipelinectl() -> None:
    """Operate pipelined: the daemon, its topics, its tables, its configuration, its books.

    The help of each command says what it is for, with an example: `pipelinectl status --help`. Exit code 0
    where it did that, 64 where it was called wrongly, 69 where something does not answer, 78 where the
    configuration is wrong; what else there is stands in its help.

    A daemon that runs is found, shown and operated also while its configuration file is broken. What would
    take that file over refuses: `reload`, and `start` and `restart` of the daemon itself.

    \b
    Example:
      pipelinectl status
      pipelinectl --config /etc/pipelined/blue.toml doctor
    """  # noqa: D301 - click takes the character \\b for a paragraph to keep


main = main_wrapper(pipelinectl)
